"""psycopg's adapter and manager keep their contracts."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from pyscopg2.psycopg import PoolManager, PsycopgAdapter
from pyscopg2.psycopg.watch import Connection, Pool
from pyscopg2.testing.contract import AdapterContract, Subject
from pyscopg2.testing.manager_contract import ManagerContract, ManagerSubject


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
SUBJECT = Subject(PsycopgAdapter(), execute=execute, commits=True, transactions=TRANSACTIONS)


class TestPsycopg(AdapterContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> Subject[Pool, Connection]:
        return SUBJECT


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


class TestPoolManager(ManagerContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> ManagerSubject[Pool, Connection]:
        return ManagerSubject(
            PoolManager,
            SUBJECT,
            errors=(psycopg.Error,),
            commit=lambda connection: connection.commit(),
            acquire_kwargs={"timeout": 5},
            # The pool's words where a program ends while its workers connect.
            noise=("error connecting in 'pool-", "_GatheringFuture exception was never retrieved"),
        )
