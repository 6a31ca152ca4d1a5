"""Which hosts may serve a request: every rule about it stands here.

1. The host has the role that is asked for, and is in service (`eligible`).
2. It has a pool, to which connects do not fail just now: it is not suspended.
3. Hosts that are overdue with their check serve only where all are.
4. A read that is bounded is served by replicas that are proven to keep its bound; where there is
   none, by a master, if it allows that, and its patience is over (`proven`).
"""

from collections.abc import Mapping, Sequence

from pyscopg2.core.adapter.protocol import PoolT
from pyscopg2.core.checkout.bound import Bound
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.proofs import Proofs
from pyscopg2.core.checkout.request import Request
from pyscopg2.core.topology.host_state import HostState, Role
from pyscopg2.core.topology.snapshot import Topology


def eligible(topology: Topology, request: Request) -> tuple[HostState, ...]:
    """The hosts that have the role, in the order of the DSN."""
    if request.pool_id is not None:
        return tuple(h for h in topology if h.serving and id(h.pool) == request.pool_id)
    if not request.read_only:
        return topology.masters
    if request.masters_too or (request.bounded and request.fallback_master):
        able = {host.address for host in (*topology.masters, *topology.replicas)}
        return tuple(host for host in topology if host.address in able)
    if request.fallback_master and not topology.replicas:
        return topology.masters
    return topology.replicas


def candidates(
    topology: Topology, host_pools: Mapping[str, HostPool[PoolT]], request: Request
) -> list[HostPool[PoolT]]:
    """The host pools that may serve it now, with a free slot or without, in the order of the DSN.

    ``host_pools``: those not retired, by address. Of a bounded request, before anything is asked
    about its bound.
    """
    able = [
        (host, host_pool)
        for host in eligible(topology, request)
        if (host_pool := host_pools.get(host.address)) is not None and not host_pool.suspended
    ]
    prompt = [host_pool for host, host_pool in able if not host.overdue]
    return prompt or [host_pool for _, host_pool in able]


def proven(
    proofs: Proofs,
    able: Sequence[HostPool[PoolT]],
    request: Request,
    bound: Bound,
    now: float,
) -> list[HostPool[PoolT]]:
    """Those of the candidates that may serve a request with this bound, at this moment."""
    masters: list[HostPool[PoolT]] = []
    replicas: list[HostPool[PoolT]] = []
    stale = False
    for host_pool in able:
        is_master = proofs.topology[host_pool.address].role is Role.MASTER
        if bound.is_met(proofs.freshness(host_pool.address), now):
            (masters if is_master else replicas).append(host_pool)
        elif not is_master:
            stale = True
    if request.masters_too:
        return [each for each in able if each in masters or each in replicas]
    if replicas:
        return replicas
    return [] if stale and now < bound.masters_at else masters
