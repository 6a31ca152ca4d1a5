"""How a manager starts and ends, and how its parts are put together."""

import asyncio
import contextvars
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Generic

from pyscopg2.balancer_policy import BalancerPolicy
from pyscopg2.core.adapter.protocol import Adapter, ConnT, PoolT, Reserves
from pyscopg2.core.checkout.checkouts import Checkouts
from pyscopg2.core.diagnosis import log
from pyscopg2.core.dsn.target import Target
from pyscopg2.core.errors import PoolManagerClosedError
from pyscopg2.core.events.changes import Changes
from pyscopg2.core.events.event import ManagerClosed, ManagerStarted
from pyscopg2.core.events.listeners import Listeners
from pyscopg2.core.monitoring.attention import Attention
from pyscopg2.core.monitoring.monitor import Monitor
from pyscopg2.core.monitoring.reserved import Reserve, ReserveApart, ReserveInPool
from pyscopg2.core.statistics.tally import Tallies
from pyscopg2.core.timing.background import Background
from pyscopg2.core.topology import transition_log
from pyscopg2.core.topology.snapshot import Topology
from pyscopg2.core.topology.store import Store

_LOOK_GAP = 0.05
"""Seconds between two looks at the connections that the monitors keep."""


class Lifecycle(Generic[PoolT, ConnT]):
    """The parts of one manager, from before its start to after its end.

    Parts know the ones below them: the monitors publish to the `store`, the `checkouts` follow it,
    and what travels against that stream goes through the `attention`.
    """

    def __init__(
        self,
        adapter: Adapter[PoolT, ConnT],
        targets: Mapping[str, Target],
        options: Mapping[str, Any],
        policy: BalancerPolicy,
        *,
        refresh_delay: float,
        refresh_timeout: float,
        abandon_timeout: float,
        stopwatch_window_size: int,
        fencing: bool,
    ) -> None:
        """Opens nothing. ``targets``: by address, in the order of the DSN. For the others see
        `BasePoolManager`."""
        self._adapter = adapter
        self._refresh_delay = refresh_delay
        self._refresh_timeout = refresh_timeout
        self._background = Background()
        self.store = Store(Topology.of(tuple(targets), fencing=fencing))
        self.listeners = Listeners()
        self.tallies = Tallies()
        # These hear in this order: the log, the events, the tallies, the attention, the checkouts;
        # and users' listeners when all is done.
        self.store.subscribe(transition_log.write)
        self.store.subscribe(Changes(self.listeners, self.store.topology).follow)
        self.store.subscribe(self.tallies.follow)
        self.attention = Attention(self.store, refresh_delay)
        self.checkouts: Checkouts[PoolT, ConnT] = Checkouts(
            adapter,
            targets,
            self.store,
            self.attention,
            policy,
            self._background,
            self.listeners,
            self.tallies,
            start=self.start,
            refresh_timeout=refresh_timeout,
            abandon_timeout=abandon_timeout,
        )
        self.store.subscribe(lambda _, __: self.listeners.flush())
        self._monitors = {
            address: Monitor(
                target,
                adapter,
                options,
                self.store,
                self._background,
                self.attention,
                self._reserve(target, options),
                refresh_timeout=refresh_timeout,
                stopwatch_window_size=stopwatch_window_size,
            )
            for address, target in targets.items()
        }
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """The monitors', by address."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """It belongs to this one; None before its start."""
        self._settling: asyncio.TimerHandle | None = None
        self.check_context = contextvars.Context()
        """In which the monitors run: nothing of the request's that used the manager first."""
        self.is_closed = False
        """No use starts it any more."""
        self._has_told_end = False

    def _reserve(self, target: Target, options: Mapping[str, Any]) -> Reserve[PoolT]:
        """How the host's monitor connects."""
        adapter = self._adapter
        if isinstance(adapter, Reserves):
            return ReserveApart(adapter, target, options)
        return ReserveInPool(adapter, target, options, self._background, self._refresh_timeout)

    @property
    def has_started(self) -> bool:
        return self.loop is not None

    def start(self) -> None:
        """On every use: start in the running loop, the first time.

        `PoolManagerClosedError`: it is closed. `RuntimeError`: it belongs to another loop.
        """
        loop = asyncio.get_running_loop()
        if self.is_closed:
            raise closed()
        if loop is self.loop:
            return
        if self.loop is not None:
            raise RuntimeError(
                "this pool manager belongs to another event loop: make one manager per loop"
            )
        self.loop = loop
        self.checkouts.open(loop)
        for address in self._monitors:
            self._run_monitor(address)
        self._settling = loop.call_later(self._refresh_timeout, self.store.settle)
        self._look()
        self.listeners.tell(ManagerStarted(addresses=tuple(self._monitors)))

    async def end(self, timeout: float) -> None:
        """Hand out nothing more, wait so many seconds for the connections that are out, and end
        everything. Safe to call again, in any state: the shorter time counts.

        `RuntimeError`: it belongs to another loop, which runs.
        """
        if self.loop is None or self.loop.is_closed():
            # Never started, or everything ended with its event loop.
            self.is_closed = True
            return
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("this pool manager belongs to another event loop: close it there")
        self.is_closed = True
        for monitor in self._monitors.values():
            monitor.stop()
        if self._settling is not None:
            self._settling.cancel()
        for task in self._tasks.values():
            task.cancel()
            self._background.adopt(task)
        self.store.close(closed)
        self.checkouts.close(closed, timeout)
        await self.checkouts.ended()
        # A pool that does not close in time is terminated then, which takes its time, too.
        await self._background.drain(self._refresh_timeout * (2 if timeout else 1))
        if not self._has_told_end:
            self._has_told_end = True
            self.listeners.tell(ManagerClosed())

    # The monitors' tasks

    def _run_monitor(self, address: str) -> None:
        watching = self._watch_over(address)
        name = f"pyscopg2 monitor of {address}"
        loop = asyncio.get_running_loop()
        task = loop.create_task(watching, name=name, context=self.check_context)
        self._tasks[address] = task
        task.add_done_callback(partial(self._revive_monitor, address))

    async def _watch_over(self, address: str) -> None:
        """Run the monitor. Cancelled without having been closed, the event loop is ending, and
        nobody else is left to end the host's pools, and what users have of them."""
        monitor = self._monitors[address]
        try:
            await monitor.run()
        finally:
            if not self.is_closed:
                self.checkouts.cut_all(address)
                await monitor.end_pool()
                for pool in self.checkouts.retirement.pools_of(address):
                    await self._adapter.terminate_pool(pool)

    def _revive_monitor(self, address: str, task: "asyncio.Task[None]") -> None:
        """Nothing ends a monitor; one that has ended all the same is started anew."""
        if self.is_closed or task.cancelled():
            return
        error = task.exception() or RuntimeError("the monitor ended")
        text = "the monitor of %s ended, and is started anew"
        log.say(logging.ERROR, text, address, exc=error, host=address)
        self._monitors[address].ended(error)
        asyncio.get_running_loop().call_later(self._refresh_delay, self._run_anew, address)

    def _run_anew(self, address: str) -> None:
        if not self.is_closed:
            self._run_monitor(address)

    def _look(self) -> None:
        """One timer for all monitors: has one of them lost its connection between checks?"""
        if self.loop is not None and not self.is_closed:
            self.loop.call_later(_LOOK_GAP, self._look)
            for monitor in self._monitors.values():
                monitor.look()


def closed() -> PoolManagerClosedError:
    """A new one for each task that is told."""
    return PoolManagerClosedError(
        "the pool manager is closed: `close` or `terminate` was called, or its `async with` block"
        " has ended. Make a new manager to go on"
    )
