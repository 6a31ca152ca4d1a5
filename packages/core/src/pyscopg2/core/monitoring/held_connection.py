"""The one connection that a monitor keeps for itself, from when it opens it to when it drops it."""

import asyncio
import math
from collections.abc import Callable
from typing import Generic, cast

from pyscopg2.core.adapter.protocol import PoolT
from pyscopg2.core.diagnosis.error_class import SqlState
from pyscopg2.core.monitoring.bounds import Bounds
from pyscopg2.core.monitoring.complaints import Complaints
from pyscopg2.core.monitoring.pool_keeper import PoolKeeper
from pyscopg2.core.monitoring.reserved import Reserve, Reserved
from pyscopg2.core.timing.attempt import FailedError
from pyscopg2.core.topology.role_query import Answer, RoleQuery
from pyscopg2.core.topology.store import Store


class HeldConnection(Generic[PoolT]):
    """The reserved connection of now, if there is one.

    States: none; opening, in `open`; open; taken from the host's pool (`is_in_pool`), for
    adapters without `Reserves`. It is dropped with the first sign that something is wrong with it.
    """

    def __init__(
        self,
        address: str,
        reserve: Reserve[PoolT],
        keeper: PoolKeeper[PoolT],
        store: Store,
        sqlstate: SqlState,
        bounds: Bounds,
        complaints: Complaints,
    ) -> None:
        self._address = address
        self._reserve = reserve
        self._keeper = keeper
        self._store = store
        self._sqlstate = sqlstate
        self._bounds = bounds
        self._complaints = complaints
        self._reserved: Reserved[PoolT] | None = None
        self._query: RoleQuery | None = None
        """Asks over it."""
        self.is_new = False
        """Whether it is another one than at the last answer."""
        self.broke_at = -math.inf
        """When one that was open had to be replaced last, on the event loop's clock, in seconds."""
        self._slow = 0
        """How many in a row have not opened in their time."""

    @property
    def is_open(self) -> bool:
        return self._reserved is not None

    @property
    def pool(self) -> PoolT | None:
        """The one that it was taken out of."""
        return None if self._reserved is None else self._reserved.pool

    @property
    def is_in_pool(self) -> bool:
        return self.pool is not None

    @property
    def in_recovery(self) -> bool | None:
        """What its server reported last by itself; None where it did not."""
        return None if self._reserved is None else self._reserved.connection.in_recovery()

    def is_closed(self) -> bool:
        """Whether it is open no more, as far as the driver knows."""
        if self._reserved is None:
            return False
        try:
            return self._reserved.connection.is_closed() is True
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            self._complaints.say(exc)
            return False

    def hearing(self) -> Callable[[], bool] | None:
        """What tells whether this very connection is open, as far as the driver knows; also when it
        has been dropped."""
        if self._reserved is None:
            return None
        is_closed = self._reserved.connection.is_closed

        def is_heard() -> bool:
            try:
                return is_closed() is False
            except KeyboardInterrupt:
                raise
            except BaseException as exc:
                self._complaints.say(exc)
                return False

        return is_heard

    async def open(self) -> None:
        """How long that takes, with a host far away, is another matter than how long the host takes
        to answer. `FailedError`: with a `TimeoutError` where it takes too long."""
        seconds = self._bounds.opening(self._slow)
        late = TimeoutError(f"no connection within {seconds:g} s")
        try:
            await self._bounds.attempt(self._open(), seconds, late, self._nothing)
        except FailedError as failed:
            self._slow += failed.error is late
            raise
        self._slow = 0

    async def _open(self) -> None:
        self.take(await self._reserve.open(self._keeper.pool))

    async def open_apart(self, into: list[Reserved[PoolT]]) -> Answer:
        """Open another one, put it ``into`` this list, and ask there; what becomes of it is for the
        caller. `FailedError`."""
        seconds = self._bounds.opening(self._slow)
        late = TimeoutError()

        async def connect() -> None:
            into.append(await self._reserve.open(None))

        await self._bounds.attempt(connect(), seconds, late, self._nothing)
        connection = into[0].connection
        query = RoleQuery(connection.fetch_scalar, self._sqlstate)
        asking = self._bounds.timed(query)
        timeout = self._bounds.refresh_timeout
        return await self._bounds.attempt(asking, timeout, late, connection.terminate)

    def take(self, reserved: Reserved[PoolT]) -> None:
        """Keep this one from now on."""
        self._reserved = reserved
        self._query = RoleQuery(reserved.connection.fetch_scalar, self._sqlstate)
        self.is_new = True
        if reserved.pool is not None:
            self._keeper.adopt(reserved.pool)

    async def ask(self, late: TimeoutError) -> Answer:
        """The server's answer to the role query. `FailedError`: with ``late`` where there is none
        within the refresh timeout."""
        timeout = self._bounds.refresh_timeout
        return await self._bounds.attempt(self._ask(), timeout, late, self.drop)

    async def _ask(self) -> Answer:
        if self._query is None:
            # Dropped before this has begun.
            raise asyncio.CancelledError
        return await self._bounds.timed(self._query)

    def drop(self) -> "asyncio.Task[None] | None":
        """Terminate it, and give it back to its pool if it is out of one; returns the task that
        does so.

        A pool that was published is ended by the checkouts, which follow the store; one that was
        not ends here.
        """
        reserved, self._reserved = self._reserved, None
        self._query = None
        if reserved is None:
            return None
        published = cast("PoolT | None", self._store.topology[self._address].pool)
        is_unknown = reserved.pool is not None and reserved.pool is not published
        if is_unknown and self._keeper.pool is reserved.pool:
            self._keeper.let_go()
        return self._drop(reserved, with_pool=is_unknown)

    def drop_other(self, reserved: Reserved[PoolT]) -> None:
        """Drop one that was opened apart."""
        self._drop(reserved, with_pool=True)

    def _drop(self, reserved: Reserved[PoolT], *, with_pool: bool) -> "asyncio.Task[None] | None":
        try:
            return self._reserve.drop(reserved, with_pool=with_pool)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            self._complaints.say(exc)
            return None

    def terminate(self) -> None:
        """Without giving it back: the event loop is ending."""
        if self._reserved is not None:
            self._reserved.connection.terminate()

    @staticmethod
    def _nothing() -> None:
        """What is to be cut off before a connect is cancelled."""
