"""pg8000, as pyscopg2 sees it."""

from collections.abc import Awaitable
from typing import Any

from pg8000.native import DatabaseError

from pg8000_threads.connection import Connection
from pg8000_threads.pool import Pool
from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter
from pyscopg2.core.demands import supported
from pyscopg2.core.dsn import Target

_PARAMS = {"application_name", "options"}
"""Of the DSN's other parameters, what `Connection` makes use of. Who asks for TLS must not go
without: `supported` refuses that."""


class Pg8000Adapter:
    """The verbs of `pyscopg2.core.adapter.Adapter`, each with what it comes to here."""

    def check_options(self, target: Target, /, **options: Any) -> None:
        _checked(target, **options)

    def create_pool(self, target: Target, /, **options: Any) -> Awaitable[Pool]:
        return Pool.open(*_checked(target, **options))

    async def close_pool(self, pool: Pool, /) -> None:
        pool.close()

    async def terminate_pool(self, pool: Pool, /) -> None:
        pool.terminate()

    def acquire_from_pool(self, pool: Pool, /, **kwargs: Any) -> Awaitable[Connection]:
        return pool.acquire(**kwargs)

    def release_to_pool(
        self, connection: Connection, pool: Pool, /, **kwargs: Any
    ) -> Awaitable[None]:
        return pool.release(connection, **kwargs)

    def terminate_connection(self, connection: Connection, /) -> None:
        connection.terminate()

    def end_block(self, connection: Connection, exc: BaseException | None, /) -> None:
        """Nothing: each statement has committed by itself."""

    async def fetch_scalar(self, connection: Connection, query: str, /) -> object:
        rows = await connection.run(query)
        return rows[0][0] if rows else None

    def sqlstate(self, exc: BaseException, /) -> str | None:
        return exc.args[0].get("C") if isinstance(exc, DatabaseError) else None

    def get_pool_freesize(self, pool: Pool, /) -> int:
        return pool.freesize

    def get_pool_maxsize(self, pool: Pool, /) -> int:
        return pool.maxsize

    def is_connection_closed(self, connection: Connection, /) -> bool:
        return connection.closed


class PoolManager(BasePoolManager[Pool, Connection]):
    """What users construct. Of pool options there is one: ``max_size``, 10 by default."""

    adapter: Adapter[Pool, Connection] = Pg8000Adapter()


def _checked(target: Target, *, max_size: int = 10) -> tuple[Target, int]:
    """The target, and the pool's size: the user's, and one for the monitor."""
    if max_size < 1:
        raise ValueError("max_size is at least 1")
    supported(target, _PARAMS)
    return target, max_size + 1
