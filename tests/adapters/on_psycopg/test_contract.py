"""psycopg's adapter keeps the contract."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from psycopg import IsolationLevel
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from pyscopg2.psycopg import PsycopgAdapter
from pyscopg2.psycopg.watch import Connection, Pool
from pyscopg2.testing.contract import AdapterContract, Subject


async def execute(connection: Connection, sql: str) -> None:
    await connection.execute(sql.encode())


@asynccontextmanager
async def commit(connection: Connection) -> AsyncGenerator[None]:
    yield
    await connection.commit()


TRANSACTIONS: dict[str, Callable[[Connection], AbstractAsyncContextManager[object]]] = {
    "transaction()": lambda connection: connection.transaction(),
    "commit()": commit,
}


class TestPsycopg(AdapterContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> Subject[Pool, Connection]:
        return Subject(PsycopgAdapter(), execute=execute, commits=True, transactions=TRANSACTIONS)


class TestPsycopgConfigured(AdapterContract[Pool, Connection]):
    """The same, whatever the user's settings are."""

    @pytest.fixture
    def subject(self) -> Subject[Pool, Connection]:
        async def configure(connection: Connection) -> None:
            await connection.set_isolation_level(IsolationLevel.SERIALIZABLE)

        async def reset(connection: Connection) -> None:
            await connection.execute("RESET ALL")
            await connection.commit()

        options = {
            "kwargs": {"row_factory": dict_row, "prepare_threshold": 0},
            "configure": configure,
            "reset": reset,
            "check": AsyncConnectionPool.check_connection,
        }
        return Subject(
            PsycopgAdapter(),
            execute=execute,
            commits=True,
            transactions=TRANSACTIONS,
            options=options,
        )
