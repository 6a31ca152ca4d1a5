"""Why a request got no connection: for each host that could have served it, why it did not.

An error blames a host of which the request could have had a connection, and no other: where a pool
is merely exhausted, nobody's.
"""

import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pyscopg2.core.checkout.bound import Bound
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.request import Request
from pyscopg2.core.checkout.selection import eligible
from pyscopg2.core.checkout.slots import Slots
from pyscopg2.core.checkout.wait_queue import WaitQueue
from pyscopg2.core.diagnosis.redaction import describe
from pyscopg2.core.dsn.target import Target
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.topology.host_state import HostState, Role
from pyscopg2.core.topology.snapshot import Topology

Tried = dict[str, BaseException | None]
"""What came of an acquire's connects, by address, the last one last; None: of its own no error, it
took too long."""


def explain(
    request: Request,
    timeout: float,
    topology: Topology,
    slots: Slots[Any],
    tried: Tried,
    waiting: Mapping[WaitQueue[Any], int],
    targets: Mapping[str, Target],
    bound: Bound | None = None,
) -> tuple[str, BaseException | None]:
    """What an acquire that gives up says, and its cause. ``waiting``: how many, in each queue."""
    now = stopwatch.clock()
    host_pools = {host_pool.address: host_pool for host_pool in slots.host_pools}
    able = {host.address for host in eligible(topology, request)}
    words: list[str] = []
    for host in topology:
        host_pool = host_pools.get(host.address)
        known = topology.freshness(host.address)
        if bound is not None and host.address in able and not bound.is_met(known, now):
            words.append(f"{host}: {known.describe(now)}")
        elif host.address in able and host_pool is not None:
            queues = [queue for queue in waiting if host_pool in slots.candidates(queue)]
            crowd = sum(waiting[queue] for queue in queues)
            secrets = targets[host.address].secrets
            words.append(f"{host}: {_reason(host_pool, timeout, tried, crowd, secrets)}")
        else:
            words.append(str(host))
    asked = str(request) if bound is None else f"{request} {bound.describe()}"
    text = f"no connection to {asked} within {timeout:g} s: {'; '.join(words)}"
    failed = [error for error in tried.values() if error is not None]
    if failed:
        return text, failed[-1]
    if able:
        trials = [host_pool for address, host_pool in host_pools.items() if address in able]
        failing = [each for each in trials if each.failure is not None]
        return text, max(failing, key=lambda each: each.tried_at).failure if failing else None
    return text, blamed(topology, read_only=request.read_only)


def blamed(topology: Topology, *, read_only: bool) -> BaseException | None:
    """While no host has a role: the error of the one that comes first among those that may have
    it. That is one which had it, rather than one of which nothing is known, and another last."""
    lost = [host for host in topology if host.role is Role.UNAVAILABLE and host.error is not None]
    return _first(lost, read_only).error if lost else None


def _first(hosts: Iterable[HostState], read_only: bool) -> HostState:
    def rank(host: HostState) -> tuple[int, bool]:
        had_it = host.answer is not None and host.answer.writable is not read_only
        return 0 if had_it else 1 if host.answer is None else 2, not host.hopeless

    return min(hosts, key=rank)


def _reason(
    host_pool: HostPool[Any],
    timeout: float,
    tried: Tried,
    waiting: int,
    secrets: Collection[str],
) -> str:
    error = tried.get(host_pool.address) or host_pool.failure
    said = None if error is None else describe(error, secrets)
    if host_pool.suspended:
        why = f"after a failed connect: {said}" if said else "a connect took too long"
        return f"suspended, {why}"
    if host_pool.in_use >= host_pool.limit:
        size = "" if host_pool.size == sys.maxsize else f" of {host_pool.size}"
        reason = f"{host_pool.in_use}{size} in use, {waiting} waiting"
        if host_pool.limit < host_pool.size:
            reason += f", no more after a failed connect: {said}" if said else ", connects are slow"
        return reason
    if said:
        return f"no connection within {timeout:g} s: {said}"
    if host_pool.address in tried:
        return f"no connection within {timeout:g} s"
    return "a slot came free too late"
