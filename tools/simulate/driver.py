"""The fake driver, with accounts of what each user has; and the loop it runs on."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol, TypeVarTuple

from pyscopg2.core.dsn import Target
from pyscopg2.core.topology.role_query import PLAIN_QUERY, RICH_QUERY
from pyscopg2.testing.fake import (
    FakeAdapter,
    FakeConnection,
    FakeNetwork,
    FakePool,
    FakeQuirks,
    FakeReserved,
    PooledFakeAdapter,
)
from pyscopg2.testing.virtual_time import VirtualTimeLoop

HAIR = 0.005
"""Seconds: a few ticks of the loop's timers, which fire late and never early."""

ArgsT = TypeVarTuple("ArgsT")


TICKS = 1000
"""In a second. All timers fire at a tick, so that much happens at the same time: there bugs are."""


class SimulationLoop(VirtualTimeLoop):
    """Knows its timers, and for how long it has stood still."""

    def __init__(self) -> None:
        super().__init__()
        self.stalled = 0.0
        """Seconds, in all."""
        self._timers: list[asyncio.TimerHandle] = []

    def stall(self, seconds: float) -> None:
        self.stalled += seconds
        super().stall(seconds)

    def call_at(
        self,
        when: float,
        callback: Callable[[*ArgsT], object],
        *args: *ArgsT,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        tick = math.ceil(when * TICKS)
        if tick / TICKS < when:
            # By a hair: asyncio would fire it together with the tick before, and too early.
            tick += 1
        timer = super().call_at(tick / TICKS, callback, *args, context=context)
        self._timers.append(timer)
        return timer

    def timers(self) -> list[asyncio.TimerHandle]:
        """Those that are still to fire."""
        now = self.time()
        self._timers = [t for t in self._timers if not t.cancelled() and t.when() > now]
        return list(self._timers)


class User(Protocol):
    """A user that acquires: given to the driver's acquire as ``by``."""

    connecting: FakePool | None
    connects: int
    """How often it has begun to: what it was interrupted in may go on by itself."""


class Guest:
    """A user of whom nobody wants to know more."""

    connecting: FakePool | None = None
    connects = 0


class Listener(Protocol):
    """Hears of what the manager does with the driver."""

    def asked(self, address: str) -> None:
        """The monitor begins to ask a host for its role."""
        ...

    def answered(self, address: str, answer: object) -> None: ...

    def dialled(self, address: str) -> None:
        """The monitor begins to open a connection."""
        ...

    def broken(self, name: str, detail: str) -> None:
        """An invariant is."""
        ...


class Account:
    """One pool's, for users: the monitor's connection does not stand here."""

    def __init__(self, pool: FakePool, began: float) -> None:
        self.pool = pool
        self.began = began
        self.ends: float | None = None
        """Retired: when it has to be closed at the latest, on the loop's clock."""
        self.opening = 0
        self.out: dict[FakeConnection, None] = {}
        """Also on its way back."""

    @property
    def in_use(self) -> int:
        return self.opening + len(self.out)


class WatchedAdapter(PooledFakeAdapter):
    """Keeps the accounts, and tells the listener. Its monitors take their connections from the
    pools."""

    def __init__(self, network: FakeNetwork, quirks: FakeQuirks, listener: Listener) -> None:
        super().__init__(network, quirks)
        self.accounts: dict[FakePool, Account] = {}
        """Of all pools that are not closed."""
        self.returned: deque[FakeConnection] = deque(maxlen=64)
        self._listener = listener

    async def create_pool(self, target: Target, /, **options: Any) -> FakePool:
        self._listener.dialled(target.address)
        pool = await super().create_pool(target, **options)
        self.accounts[pool] = Account(pool, asyncio.get_running_loop().time())
        return pool

    async def acquire_from_pool(self, pool: FakePool, /, **kwargs: Any) -> FakeConnection:
        by: User | None = kwargs.get("by")
        if by is None:
            if all(connection.is_closed for connection in pool.idle):
                self._listener.dialled(pool.address)
            return await pool.acquire()
        account = self.accounts[pool] if pool in self.accounts else Account(pool, 0)
        account.opening += 1
        by.connecting = pool
        by.connects = this = by.connects + 1
        try:
            connection = await pool.acquire()
        finally:
            account.opening -= 1
            if by.connects == this:
                by.connecting = None
        account.out[connection] = None
        return connection

    async def release_to_pool(
        self, connection: FakeConnection, pool: FakePool, /, **kwargs: Any
    ) -> None:
        if connection not in pool.out and connection not in self.returned:
            self._listener.broken(
                "given back once", f"{connection!r} was given to the driver, and is not out"
            )
        account = self.accounts.get(pool)
        try:
            await pool.release(connection, **kwargs)
        except BaseException:
            # Nobody knows whether the driver has it: it may be given back once more.
            self.returned.append(connection)
            raise
        finally:
            if account is not None:
                account.out.pop(connection, None)

    async def fetch_scalar(self, connection: FakeConnection, query: str, /) -> object:
        if query == RICH_QUERY:
            self._listener.asked(connection.address)
        answer = await connection.fetch_scalar(query)
        if query in (RICH_QUERY, PLAIN_QUERY):
            self._listener.answered(connection.address, answer)
        return answer


class ReservingAdapter(WatchedAdapter, FakeAdapter):
    """Its monitors' connections are apart from the pools."""

    async def reserve(self, target: Target, /, **options: Any) -> FakeReserved:
        self._listener.dialled(target.address)
        apart = await super().reserve(target, **options)
        return WatchedReserved(apart.connection, self._listener)


class WatchedReserved(FakeReserved):
    """Tells the listener what is asked and answered."""

    def __init__(self, connection: FakeConnection, listener: Listener) -> None:
        super().__init__(connection)
        self._listener = listener

    async def fetch_scalar(self, query: str, /) -> object:
        if query == RICH_QUERY:
            self._listener.asked(self.connection.address)
        answer = await self.connection.fetch_scalar(query)
        self._listener.answered(self.connection.address, answer)
        return answer


class Early(WatchedAdapter):
    """The driver's pool has a connection back some turns of the loop before it says so."""

    async def return_to_pool(
        self,
        connection: FakeConnection,
        pool: FakePool,
        returned: Callable[[], None],
        /,
    ) -> None:
        await self.release_to_pool(connection, pool)
        returned()
        for _ in range(2):
            await asyncio.sleep(0)


class EarlyReservingAdapter(Early, ReservingAdapter):
    """Both."""


def driver_of(*, early: bool, reserves: bool) -> type[WatchedAdapter]:
    """The driver with these manners."""
    if early:
        return EarlyReservingAdapter if reserves else Early
    return ReservingAdapter if reserves else WatchedAdapter
