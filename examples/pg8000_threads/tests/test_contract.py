"""pg8000 fulfils the contract of adapters."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pg8000_threads import Connection, Pg8000Adapter, Pool
from pyscopg2.testing.contract import AdapterContract, Subject


def sizes(minimum: int, maximum: int) -> Mapping[str, Any]:
    return {"max_size": maximum}


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncGenerator[None]:
    await connection.run("BEGIN")
    yield
    await connection.run("COMMIT")


class TestPg8000(AdapterContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> Subject[Pool, Connection]:
        return Subject(
            Pg8000Adapter(),
            execute=lambda connection, sql: connection.run(sql),
            commits=False,
            autocommit=True,
            sizes=sizes,
            transactions={"BEGIN": transaction},
        )
