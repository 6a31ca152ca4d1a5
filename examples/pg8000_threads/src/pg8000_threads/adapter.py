"""pg8000, as pyscopg2 sees it."""

import asyncio
from typing import Any

from pg8000.native import DatabaseError

from pg8000_threads.connection import PARAMS, Connection
from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter
from pyscopg2.core.adapter.driver_params import supported
from pyscopg2.core.adapter.pooled import ConnectionPool, PooledAdapter
from pyscopg2.core.dsn import Target

Pool = ConnectionPool[Connection]


class Pg8000Adapter(PooledAdapter[Connection]):
    """What can be done with one connection; the pool is the kit's."""

    def check_options(self, target: Target, /, **options: Any) -> None:
        super().check_options(target, **options)
        # Who asks for TLS must not go without.
        supported(target, PARAMS)

    async def connect(self, target: Target, /) -> Connection:
        seconds = int(target.params.get("connect_timeout") or 0)
        async with asyncio.timeout(seconds if seconds > 0 else None):
            return await Connection.open(target)

    def fileno(self, connection: Connection, /) -> int:
        return connection.fileno()

    def is_busy(self, connection: Connection, /) -> bool:
        return connection.is_busy

    def close(self, connection: Connection, /) -> None:
        connection.close()

    async def reset(self, connection: Connection, /) -> None:
        if connection.in_transaction:
            await connection.run("ROLLBACK")

    async def query(self, connection: Connection, sql: str, /) -> object:
        return await connection.text(sql)

    def in_recovery(self, connection: Connection, /) -> bool | None:
        told = connection.reported("in_hot_standby")
        return None if told is None else told == "on"

    def sqlstate(self, exc: BaseException, /) -> str | None:
        return exc.args[0].get("C") if isinstance(exc, DatabaseError) else None


class PoolManager(BasePoolManager[Pool, Connection]):
    """What users construct. Of pool options there are ``min_size`` and ``max_size``."""

    adapter: Adapter[Pool, Connection] = Pg8000Adapter()
