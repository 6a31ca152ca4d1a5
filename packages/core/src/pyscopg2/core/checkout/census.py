"""The numbers of this moment, from where each is known."""

import logging
import sys
from typing import Any, cast

from pyscopg2.core.adapter.protocol import CountsIdle
from pyscopg2.core.checkout.checkouts import Checkouts
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.diagnosis import log
from pyscopg2.core.statistics.stats import HostStats, Stats
from pyscopg2.core.statistics.tally import Tallies, Times
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.topology.host_state import HostState


def count(checkouts: Checkouts[Any, Any], tallies: Tallies, times: Times | None) -> Stats:
    """A snapshot. ``times``: None where nobody asked for durations."""
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
            crowds = (n for queue, n in queues.items() if host_pool in slots.candidates(queue))
            waiting = sum(crowds)
        return HostStats(
            address=address,
            role=host.role,
            serving=host.serving,
            size=_size(host_pool),
            in_use=in_use,
            idle=_idle(checkouts, host_pool),
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
        )

    return Stats(
        hosts=tuple(map(of, topology)),
        waiting=sum(queues.values()),
        timeouts=dict(tallies.timeouts),
        failovers=tallies.failovers,
    )


def _size(host_pool: HostPool[Any] | None) -> int | None:
    return None if host_pool is None or host_pool.size == sys.maxsize else host_pool.size


def _idle(checkouts: Checkouts[Any, Any], host_pool: HostPool[Any] | None) -> int | None:
    adapter = checkouts.adapter
    if host_pool is None or not isinstance(adapter, CountsIdle):
        return None
    try:
        return cast("CountsIdle[Any]", adapter).get_pool_idle_size(host_pool.pool)
    except Exception as exc:
        log.say(logging.ERROR, "the adapter's get_pool_idle_size raised", exc=exc)
        return None
