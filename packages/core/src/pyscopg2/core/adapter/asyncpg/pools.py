"""An adapter over asyncpg's pools, whichever function makes them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic

from pyscopg2.core.adapter.asyncpg.arguments import SIZES, PoolArguments, asyncpg_arguments
from pyscopg2.core.adapter.asyncpg.bulk import ends_with_its_connection
from pyscopg2.core.adapter.asyncpg.errors import AsyncpgErrors, hear_of
from pyscopg2.core.adapter.asyncpg.reserved import AsyncpgReserved, in_recovery, reserve
from pyscopg2.core.adapter.protocol import ConnT, HookError, PoolT
from pyscopg2.core.dsn.target import Target

PATIENCE = 1.0
"""Seconds that a connection's way back into its pool may take when nobody waits for it any more."""


class AsyncpgPools(Generic[PoolT, ConnT]):
    """`pyscopg2.core.adapter.Adapter` by asyncpg's public API.

    Where its pool has a connection back some turns of the event loop before it says so, this tells:
    see `ReturnsEarly`.
    """

    extra_params = True
    """asyncpg makes them settings of the session."""

    def __init__(
        self,
        asyncpg: Any,
        create_pool: Callable[..., Any],
        connection_class: type[Any],
        arguments: PoolArguments,
    ) -> None:
        """``asyncpg`` is the module, ``create_pool`` makes its pools, of connections that are of
        this class by default."""
        self._asyncpg = asyncpg
        self._create_pool = create_pool
        self._connection_class = connection_class
        self._arguments = arguments
        self._errors = AsyncpgErrors(asyncpg)
        self._heard_by: dict[object, Callable[[], None]] = {}
        """What to call when a connection that is on its way back comes free, by its settings: the
        connection of a pool and the user's proxy of it have the very same."""

    def check_options(self, target: Target, /, **options: Any) -> None:
        self._arguments.check(target, options)

    async def create_pool(self, target: Target, /, **options: Any) -> PoolT:
        pool = self._create_pool(**self.pool_arguments(target, options))
        try:
            made: PoolT = await pool
            return made
        except BaseException as exc:
            # asyncpg 0.30 leaves open what it has opened so far.
            pool.terminate()
            failure = exc
        # No user waits for what a hook has raised here: it is what became of the host.
        cause = failure.__cause__ if isinstance(failure, HookError) else None
        try:
            raise cause or failure
        finally:
            del cause, failure

    def pool_arguments(self, target: Target, options: dict[str, Any]) -> dict[str, Any]:
        """All that ``create_pool`` is called with."""
        made: dict[str, Any] = {**SIZES, **asyncpg_arguments(target, options)}
        connection_class = options.get("connection_class", self._connection_class)
        made["connection_class"] = ends_with_its_connection(connection_class, self._errors.lost)
        for name in ("init", "setup"):
            if made.get(name) is not None:
                made[name] = self._errors.told(made[name])
        reset = options.get("reset") or connection_class.reset
        is_plain = reset is self._asyncpg.Connection.reset
        made["reset"] = self._reset if is_plain else self._quiet(reset)
        return made

    async def close_pool(self, pool: Any, /) -> None:
        await pool.close()

    async def terminate_pool(self, pool: Any, /) -> None:
        pool.terminate()

    async def release_to_pool(self, connection: Any, pool: Any, /, **kwargs: Any) -> None:
        try:
            await (pool.release(connection, **kwargs) if kwargs else pool.release(connection))
        except asyncio.CancelledError:
            self._end_soon(connection)
            raise
        except self._errors.cut_off:
            if not self.is_connection_closed(connection):
                raise

    async def return_to_pool(
        self, connection: Any, pool: Any, returned: Callable[[], None], /
    ) -> None:
        try:
            settings = connection.get_settings()
        except (self._errors.interface, AttributeError):
            # It is back already, or closed.
            return await self.release_to_pool(connection, pool)
        self._heard_by[settings] = returned
        try:
            # As `release_to_pool` does, of which this is spared the coroutine.
            await pool.release(connection)
        except asyncio.CancelledError:
            self._end_soon(connection)
            raise
        except self._errors.cut_off:
            if not self.is_connection_closed(connection):
                raise
        finally:
            self._heard_by.pop(settings, None)

    def _end_soon(self, connection: ConnT) -> None:
        """Bound what asyncpg does with a release that was cancelled: it goes on, for as long as the
        server is silent. Until then the connection is out, and nobody waits for it."""
        asyncio.get_running_loop().call_later(PATIENCE, self.terminate_connection, connection)

    async def _reset(self, connection: Any) -> None:
        """What `asyncpg.Connection.reset` does beyond what the pool does anyway: on the way of
        every release, and therefore not by calling it."""
        query = connection.get_reset_query()
        if query:
            try:
                await connection.execute(query)
            except self._errors.cut_off:
                hear_of(connection)
                raise
        if self._heard_by:
            self._tell(connection)

    def _quiet(self, reset: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        """Another reset of a connection that is given back: the user's, or its class's."""

        async def quiet(connection: Any) -> None:
            try:
                await reset(connection)
            except self._errors.cut_off:
                hear_of(connection)
                raise
            self._tell(connection)

        return quiet

    def _tell(self, connection: Any) -> None:
        """In the step of the event loop in which its reset ends: it comes free in the same one."""
        if not connection.is_closed():
            returned = self._heard_by.pop(connection.get_settings(), None)
            if returned is not None:
                returned()

    def terminate_connection(self, connection: Any, /) -> None:
        try:
            connection.terminate()
        except self._errors.interface:
            pass  # it has been given back already

    async def fetch_scalar(self, connection: Any, query: str, /) -> object:
        value: object = await connection.fetchval(query)
        return value

    def sqlstate(self, exc: BaseException, /) -> str | None:
        return self._errors.sqlstate(exc)

    def transaction(self, connection: Any, /) -> AbstractAsyncContextManager[object]:
        begun: AbstractAsyncContextManager[object] = connection.transaction()
        return begun

    def is_lost_error(self, exc: BaseException, /) -> bool:
        return self._errors.is_lost(exc)

    def get_pool_maxsize(self, pool: Any, /) -> int:
        return int(pool.get_max_size())

    def get_pool_idle_size(self, pool: Any, /) -> int:
        return int(pool.get_idle_size())

    def get_pool_idle_limits(self, pool: Any, /) -> tuple[int, int]:
        return int(pool.get_min_size()), int(pool.get_max_size())

    def is_connection_closed(self, connection: Any, /) -> bool:
        try:
            return bool(connection.is_closed())
        except self._errors.interface:
            return True  # it has been given back already

    def reserve(self, target: Target, /, **options: Any) -> Awaitable[AsyncpgReserved]:
        return reserve(self._asyncpg, self._arguments, target, options)

    def in_recovery(self, connection: ConnT, /) -> bool | None:
        return in_recovery(connection)
