"""How the pools of lost hosts end: with their last checkout, or when the time for that is up."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic

from pyscopg2.core.adapter.protocol import Adapter, ConnT, PoolT
from pyscopg2.core.checkout.checkout import RETURNING, Checkout
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.termination import Termination
from pyscopg2.core.events.event import PoolClosed
from pyscopg2.core.events.listeners import Listeners
from pyscopg2.core.timing.background import Background


class Retirement(Generic[PoolT, ConnT]):
    """The retired host pools, until each has ended.

    One that has nothing in use any more is closed; one whose time is up is terminated, with all
    that is out.
    """

    def __init__(
        self,
        adapter: Adapter[PoolT, ConnT],
        out: Mapping[int, Checkout[PoolT, ConnT]],
        termination: Termination[PoolT, ConnT],
        background: Background,
        listeners: Listeners,
        patience: float,
    ) -> None:
        """``out``: all connections that are out. ``patience``: seconds for the driver to close or
        terminate a pool."""
        self._adapter = adapter
        self._close_pool: Callable[[PoolT], Awaitable[None]] = getattr(
            adapter, "close_pool", adapter.terminate_pool
        )
        self._out = out
        self._termination = termination
        self._background = background
        self._listeners = listeners
        self._patience = patience
        self._closing_time = patience
        """Seconds that a pool has to close; then it is terminated."""
        self._waiting: dict[HostPool[PoolT], tuple[asyncio.TimerHandle, float]] = {}
        """Those with checkouts, and when the time for these is up: a timer of uvloop's that is due
        at once does not say."""
        self._closing: set[asyncio.Timeout] = set()
        """Of the pools that are being closed just now."""
        self._some_ended = asyncio.Event()

    def retire(self, host_pool: HostPool[PoolT], until: float) -> None:
        """End it with its last checkout, or at that time, on the event loop's clock. Said again,
        the earlier time counts."""
        before = self._waiting.get(host_pool)
        if before is not None:
            timer, when = before
            until = min(until, when)
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._waiting[host_pool] = loop.call_at(until, self._abandon, host_pool), until
        if not host_pool.in_use and until > loop.time():
            self.emptied(host_pool)

    def hasten(self, address: str, until: float) -> None:
        """`retire` again all that have been on this host."""
        for host_pool in [each for each in self._waiting if each.address == address]:
            self.retire(host_pool, until)

    def emptied(self, host_pool: HostPool[PoolT]) -> None:
        """Its last checkout is back."""
        waiting = self._waiting.pop(host_pool, None)
        if waiting is not None:
            waiting[0].cancel()
            self._background.spawn(self._close(host_pool))
            self._some_ended.set()

    def close_all(self, until: float) -> None:
        """`retire` again all that are left. Where the time is up already, those that are being
        closed are terminated, too."""
        now = asyncio.get_running_loop().time()
        for host_pool in tuple(self._waiting):
            self.retire(host_pool, until)
        if until <= now:
            self._closing_time = 0.0
            for scope in self._closing:
                if not scope.expired():
                    scope.reschedule(now)

    def pools_of(self, address: str) -> list[PoolT]:
        """Those that wait for their last checkouts."""
        return [each.pool for each in self._waiting if each.address == address]

    def in_use(self) -> dict[str, int]:
        """How many connections of retired pools are out still, by address. Threads may ask."""
        counts: dict[str, int] = {}
        for each in tuple(self._waiting):
            counts[each.address] = counts.get(each.address, 0) + each.in_use
        return counts

    async def ended(self) -> None:
        """Until none waits for a checkout any more."""
        while self._waiting:
            self._some_ended.clear()
            await self._some_ended.wait()

    def _abandon(self, host_pool: HostPool[PoolT]) -> None:
        """Its time is up."""
        del self._waiting[host_pool]
        own = [each for each in self._out.values() if each.host_pool is host_pool]
        why = f"still out on {host_pool.address} after its pool was retired"
        self._termination.end(host_pool.address, own, why)
        for checkout in own:
            if checkout.stage is RETURNING:
                self._termination.cut(checkout)
        self._background.spawn(self._terminate(host_pool))
        self._some_ended.set()
        self._listeners.flush()

    async def _close(self, host_pool: HostPool[PoolT]) -> None:
        try:
            async with asyncio.timeout(self._closing_time) as scope:
                self._closing.add(scope)
                try:
                    await self._close_pool(host_pool.pool)
                finally:
                    self._closing.discard(scope)
        except GeneratorExit:
            # The event loop is gone: there is no waiting any more.
            raise
        except BaseException:
            await self._terminate(host_pool)
            raise
        self._tell(host_pool, "nothing was in use any more")

    async def _terminate(self, host_pool: HostPool[PoolT]) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._adapter.terminate_pool(host_pool.pool)
        finally:
            self._tell(host_pool, "terminated: its time was up")

    def _tell(self, host_pool: HostPool[PoolT], why: str) -> None:
        self._listeners.tell(PoolClosed(address=host_pool.address, pool=host_pool.pool, why=why))
