"""aiopg.sa's adapter and manager keep their contracts."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import psycopg2
import pytest
from aiopg.sa import Engine, SAConnection

from pyscopg2.aiopg_sa import AiopgSaAdapter, PoolManager
from pyscopg2.testing.contract import AdapterContract, AdapterFixtures, Subject
from pyscopg2.testing.contracts.adapter.block_contract import BlockContract
from pyscopg2.testing.contracts.adapter.release_contract import ReleaseContract
from pyscopg2.testing.contracts.adapter.request_contract import RequestContract
from pyscopg2.testing.manager_contract import ManagerContract, ManagerSubject


def sizes(minimum: int, maximum: int) -> dict[str, Any]:
    return {"minsize": minimum, "maxsize": maximum}


async def execute(connection: Any, sql: str) -> None:
    await connection.execute(sql)


def begin(connection: Any) -> Any:
    return connection.begin()


@asynccontextmanager
async def commit(connection: Any) -> AsyncGenerator[None]:
    transaction = await connection.begin()
    yield
    await transaction.commit()


SUBJECT = Subject(
    AiopgSaAdapter(),
    execute=execute,
    commits=False,
    autocommit=True,
    transactions={"begin()": begin, "commit()": commit},
    sizes=sizes,
)


class TestAiopgSa(AdapterContract[Engine, SAConnection]):
    @pytest.fixture
    def subject(self) -> Subject[Engine, SAConnection]:
        return SUBJECT


async def execute_in_transaction(connection: Any, sql: str) -> None:
    await connection.begin()
    await connection.execute(sql)


class TestAiopgSaInATransaction(
    BlockContract[Engine, SAConnection],
    ReleaseContract[Engine, SAConnection],
    RequestContract[Engine, SAConnection],
    AdapterFixtures[Engine, SAConnection],
):
    """A transaction that is left open is rolled back where the block ends. The rest of the contract
    knows nothing of transactions."""

    @pytest.fixture
    def subject(self) -> Subject[Engine, SAConnection]:
        return Subject(AiopgSaAdapter(), execute=execute_in_transaction, commits=False, sizes=sizes)


class TestPoolManager(ManagerContract[Engine, SAConnection]):
    @pytest.fixture
    def subject(self) -> ManagerSubject[Engine, SAConnection]:
        return ManagerSubject(PoolManager, SUBJECT, errors=(psycopg2.Error, OSError))
