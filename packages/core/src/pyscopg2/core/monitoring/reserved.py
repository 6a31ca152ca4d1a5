"""Where a monitor's reserved connection comes from: from apart, or out of the host's pool."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, cast

from pyscopg2.core.adapter.protocol import Adapter, ConnT, PoolT, ReservedConnection, Reserves
from pyscopg2.core.dsn.target import Target
from pyscopg2.core.timing.background import Background


@dataclass(frozen=True, slots=True)
class Reserved(Generic[PoolT]):
    """The connection that a monitor keeps for itself."""

    connection: ReservedConnection
    pool: PoolT | None
    """The one that it was taken out of; None where it is apart."""


class Reserve(Protocol[PoolT]):
    """How a monitor comes by its reserved connection, and parts from it."""

    async def open(self, pool: PoolT | None) -> Reserved[PoolT]:
        """Connect; ``pool`` is the host's pool of now, if it has one. Fails with the driver's
        error, and leaves nothing behind then, nor when it is cancelled."""
        ...

    def drop(self, reserved: Reserved[PoolT], *, with_pool: bool) -> "asyncio.Task[None] | None":
        """Terminate it. Where it is out of a pool it is given back there, ``with_pool`` ends that,
        too, and the task that does so is returned."""
        ...


class ReserveApart(Generic[PoolT]):
    """For adapters that connect apart from their pools."""

    def __init__(self, adapter: Reserves, target: Target, options: Mapping[str, Any]) -> None:
        self._adapter = adapter
        self._target = target
        self._options = options

    async def open(self, pool: PoolT | None) -> Reserved[PoolT]:
        # The traceback of what fails here lives as long as the host's state does.
        del pool
        stop_if_given_up()
        connection = await self._adapter.reserve(self._target, **self._options)
        try:
            stop_if_given_up()
        except BaseException:
            connection.terminate()
            raise
        return Reserved(connection, None)

    def drop(self, reserved: Reserved[PoolT], *, with_pool: bool) -> None:
        reserved.connection.terminate()


class ReserveInPool(Generic[PoolT, ConnT]):
    """For all others: the pool has room for one more than users may take."""

    def __init__(
        self,
        adapter: Adapter[PoolT, ConnT],
        target: Target,
        options: Mapping[str, Any],
        background: Background,
        patience: float,
    ) -> None:
        """``patience``: seconds for a terminated connection to be given back."""
        self._adapter = adapter
        self._target = target
        self._options = options
        self._background = background
        self._patience = patience

    async def open(self, pool: PoolT | None) -> Reserved[PoolT]:
        if pool is not None:
            return Reserved(await self._take(pool), pool)
        made = await self._adapter.create_pool(self._target, **self._options)
        try:
            return Reserved(await self._take(made), made)
        except BaseException:
            await self._adapter.terminate_pool(made)
            raise

    async def _take(self, pool: PoolT) -> "_Taken[PoolT, ConnT]":
        stop_if_given_up()
        taken = _Taken(self._adapter, pool, await self._adapter.acquire_from_pool(pool))
        try:
            stop_if_given_up()
        except BaseException:
            # By now the monitor may have another connection, and the pool be retired.
            taken.terminate()
            self._background.spawn(self._give_back(taken, with_pool=False))
            raise
        return taken

    def drop(self, reserved: Reserved[PoolT], *, with_pool: bool) -> "asyncio.Task[None]":
        taken = cast("_Taken[PoolT, ConnT]", reserved.connection)
        taken.terminate()
        return self._background.spawn(self._give_back(taken, with_pool=with_pool))

    async def _give_back(self, taken: "_Taken[PoolT, ConnT]", *, with_pool: bool) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await taken.give_back()
        finally:
            if with_pool:
                async with asyncio.timeout(self._patience):
                    await self._adapter.terminate_pool(taken.pool)


class _Taken(Generic[PoolT, ConnT]):
    """A pool's connection as a `ReservedConnection`."""

    def __init__(self, adapter: Adapter[PoolT, ConnT], pool: PoolT, connection: ConnT) -> None:
        self.pool = pool
        self.connection = connection
        self._adapter = adapter

    def fetch_scalar(self, query: str, /) -> Awaitable[object]:
        return self._adapter.fetch_scalar(self.connection, query)

    def in_recovery(self) -> bool | None:
        return None

    def is_closed(self) -> bool:
        return self._adapter.is_connection_closed(self.connection)

    def terminate(self) -> None:
        self._adapter.terminate_connection(self.connection)

    async def give_back(self) -> None:
        await self._adapter.release_to_pool(self.connection, self.pool)


def stop_if_given_up() -> None:
    """A driver that swallows a cancellation goes on where nobody waits for it any more."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
