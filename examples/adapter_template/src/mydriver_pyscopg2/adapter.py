"""What pyscopg2 asks of mydriver."""

from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import PGconn, TransactionStatus
from psycopg.rows import TupleRow

from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter
from pyscopg2.core.adapter.pooled import ConnectionPool, PooledAdapter
from pyscopg2.core.adapter.refusals import refusal_sqlstate
from pyscopg2.core.dsn import Target

Connection = AsyncConnection[TupleRow]
Pool = ConnectionPool[Connection]

_NO_TRANSACTION = (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)


class PsycopgAdapter(PooledAdapter[Connection]):
    """What pyscopg2 asks of one connection."""

    async def connect(self, target: Target, /) -> Connection:
        arguments: dict[str, Any] = target.to_kwargs()
        return await AsyncConnection.connect(**arguments, autocommit=True)

    def fileno(self, connection: Connection, /) -> int:
        return connection.fileno()

    def is_busy(self, connection: Connection, /) -> bool:
        return connection.lock.locked()

    def close(self, connection: Connection, /) -> None:
        status = connection.pgconn.transaction_status
        # A task that uses it hears next that it is cancelled: nothing more is committed there.
        if status in _NO_TRANSACTION or self.is_busy(connection):
            connection.pgconn.finish()
        else:
            # psycopg ends a `transaction()` block in silence where its connection is finished, as
            # if it had committed. A dead one in its place, which never had a socket, makes it fail.
            connection.pgconn = PGconn.connect_start(b"=")

    async def reset(self, connection: Connection, /) -> None:
        if connection.pgconn.transaction_status != TransactionStatus.IDLE:
            await connection.rollback()

    async def query(self, connection: Connection, sql: str, /) -> object:
        result = (await connection.execute(sql.encode())).pgresult
        value = result.get_value(0, 0) if result is not None and result.ntuples else None
        return None if value is None else value.decode(errors="replace")

    def in_recovery(self, connection: Connection, /) -> bool | None:
        if connection.closed:
            return None
        told = connection.info.parameter_status("in_hot_standby")
        return None if told is None else told == "on"

    def sqlstate(self, exc: BaseException, /) -> str | None:
        if isinstance(exc, psycopg.Error):
            return exc.sqlstate or refusal_sqlstate(str(exc))
        return None


class PoolManager(BasePoolManager[Pool, Connection]):
    """What users construct."""

    adapter: Adapter[Pool, Connection] = PsycopgAdapter()
