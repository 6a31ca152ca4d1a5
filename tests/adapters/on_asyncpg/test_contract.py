"""asyncpg's adapter keeps the contract."""

from typing import TYPE_CHECKING

import pytest

from pyscopg2.asyncpg import AsyncpgAdapter
from pyscopg2.testing.contract import AdapterContract, Subject

if TYPE_CHECKING:
    from asyncpg import Pool, Record
    from asyncpg.pool import PoolConnectionProxy


class TestAsyncpg(AdapterContract["Pool[Record]", "PoolConnectionProxy[Record]"]):
    @pytest.fixture
    def subject(self) -> "Subject[Pool[Record], PoolConnectionProxy[Record]]":
        return Subject(
            AsyncpgAdapter(),
            execute=lambda connection, sql: connection.execute(sql),
            commits=False,
            autocommit=True,
            transactions={"transaction()": lambda connection: connection.transaction()},
        )
