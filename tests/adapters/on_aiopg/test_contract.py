"""aiopg's adapter and manager keep their contracts."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import psycopg2
import pytest
from aiopg.connection import Connection
from aiopg.pool import Pool

from pyscopg2.aiopg import AiopgAdapter, PoolManager
from pyscopg2.testing.contract import AdapterContract, Subject
from pyscopg2.testing.manager_contract import ManagerContract, ManagerSubject


async def execute(connection: Connection, sql: str) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute(sql)


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncGenerator[None]:
    await execute(connection, "BEGIN")
    yield
    await execute(connection, "COMMIT")


def sizes(minimum: int, maximum: int) -> dict[str, Any]:
    return {"minsize": minimum, "maxsize": maximum}


SUBJECT = Subject(
    AiopgAdapter(),
    execute=execute,
    commits=False,
    autocommit=True,
    transactions={"COMMIT": transaction},
    sizes=sizes,
)


class TestAiopg(AdapterContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> Subject[Pool, Connection]:
        return SUBJECT


class TestPoolManager(ManagerContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> ManagerSubject[Pool, Connection]:
        return ManagerSubject(PoolManager, SUBJECT, errors=(psycopg2.Error, OSError))
