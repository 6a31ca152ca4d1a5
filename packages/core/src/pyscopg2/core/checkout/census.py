"""The numbers of this moment, from where each is known."""

import logging
import sys
from typing import Any, NamedTuple, cast

from pyscopg2.core.adapter.protocol import CountsIdle
from pyscopg2.core.checkout.checkouts import Checkouts
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.diagnosis import log
from pyscopg2.core.statistics.stats import HostStats, Stats
from pyscopg2.core.statistics.tally import Tallies, Times
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.topology.host_state import HostState


def count(checkouts: Checkouts[Any, Any], tallies: Tallies, times: Times | None) -> Stats:
    """A snapshot. ``times``: None where nobody asked for durations.

    Metrics are collected by threads: so nothing is changed here, and no dictionary is gone through
    that the event loop's thread may change meanwhile.
    """
    slots = checkouts.slots
    topology = checkouts.topology
    host_pools = {host_pool.address: host_pool for host_pool in slots.host_pools}
    queues = slots.wait_queues.lengths()
    leaving = checkouts.retirement.in_use()
    now = stopwatch.clock()

    def of(host: HostState) -> HostStats:
        address = host.address
        host_pool = host_pools.get(address)
        tally = tallies.hosts[address]
        in_use = leaving.get(address, 0)
        waiting = 0
        if host_pool is not None:
            in_use += host_pool.in_use
            # Where somebody waits, the candidates are known.
            waiting = sum(n for queue, n in queues.items() if host_pool in (queue.candidates or ()))
        idle = _idle(checkouts, host_pool)
        return HostStats(
            address=address,
            role=host.role,
            serving=host.serving,
            size=_size(host_pool),
            in_use=in_use,
            idle=idle.now,
            idle_min=idle.least,
            idle_max=idle.most,
            waiting=waiting,
            lag=topology.freshness(address).lag(now),
            response_time=host.response_time,
            acquires=tally.acquires,
            connects=tally.connects,
            failed_connects=tally.failed_connects,
            checks=tally.checks,
            failed_checks=tally.failed_checks,
            terminated=tally.terminated,
            retired=tally.retired,
            wait_time=None if times is None else times.waits[address].distribution(),
            use_time=None if times is None else times.uses[address].distribution(),
            connect_time=None if times is None else times.connects[address].distribution(),
        )

    return Stats(
        hosts=tuple(map(of, topology)),
        waiting=sum(queues.values()),
        timeouts=dict(tallies.timeouts),
        failovers=tallies.failovers,
    )


def _size(host_pool: HostPool[Any] | None) -> int | None:
    return None if host_pool is None or host_pool.size == sys.maxsize else host_pool.size


class _Idle(NamedTuple):
    """Connections that nobody uses; None where the driver does not tell."""

    now: int | None = None
    least: int | None = None
    most: int | None = None


def _idle(checkouts: Checkouts[Any, Any], host_pool: HostPool[Any] | None) -> _Idle:
    adapter = checkouts.adapter
    if host_pool is None or not isinstance(adapter, CountsIdle):
        return _Idle()
    counts = cast("CountsIdle[Any]", adapter)
    pool = host_pool.pool
    try:
        return _Idle(counts.get_pool_idle_size(pool), *counts.get_pool_idle_limits(pool))
    except Exception as exc:
        log.say(logging.ERROR, "the adapter failed to count idle connections", exc=exc)
        return _Idle()
