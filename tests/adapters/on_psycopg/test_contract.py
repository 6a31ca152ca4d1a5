"""psycopg's adapter and manager keep their contracts."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from pyscopg2.psycopg import PoolManager, PsycopgAdapter
from pyscopg2.psycopg.watch import Connection, Pool
from pyscopg2.testing.contract import AdapterContract, AdapterFixtures, Subject
from pyscopg2.testing.contracts.adapter.acquire_contract import AcquireContract
from pyscopg2.testing.contracts.adapter.block_contract import BlockContract
from pyscopg2.testing.contracts.adapter.query_contract import QueryContract
from pyscopg2.testing.contracts.adapter.release_contract import ReleaseContract
from pyscopg2.testing.contracts.adapter.request_contract import RequestContract
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


def hooks(call: Callable[[], None]) -> dict[str, Any]:
    async def check(connection: Connection) -> None:
        call()

    return {"check": check}


SUBJECT = Subject(
    PsycopgAdapter(),
    execute=execute,
    commits=True,
    transactions=TRANSACTIONS,
    hooks=hooks,
    codecs={"kwargs": {"row_factory": dict_row}},
)


class TestPsycopg(AdapterContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> Subject[Pool, Connection]:
        return SUBJECT


class TestPsycopgConfigured(
    AcquireContract[Pool, Connection],
    ReleaseContract[Pool, Connection],
    QueryContract[Pool, Connection],
    BlockContract[Pool, Connection],
    RequestContract[Pool, Connection],
    AdapterFixtures[Pool, Connection],
):
    """The same, whatever the user's settings are: what is done with the pool's connections. The
    reserved one is apart from that, see `codecs` above."""

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
            noise=("error connecting in 'pool-",),
        )
