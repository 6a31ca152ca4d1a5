"""aiopg's adapter keeps the contract."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiopg.connection import Connection
from aiopg.pool import Pool

from pyscopg2.aiopg import AiopgAdapter
from pyscopg2.testing.contract import AdapterContract, Subject


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


class TestAiopg(AdapterContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> Subject[Pool, Connection]:
        return Subject(
            AiopgAdapter(),
            execute=execute,
            commits=False,
            autocommit=True,
            transactions={"COMMIT": transaction},
            sizes=sizes,
        )
