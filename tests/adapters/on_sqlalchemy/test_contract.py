"""SQLAlchemy's adapter keeps the contract, over either driver."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from pyscopg2.sqlalchemy import SqlalchemyAdapter
from pyscopg2.testing.contract import AdapterContract, Subject


def subject_of(driver: str) -> Subject[AsyncEngine, AsyncConnection]:
    return Subject(
        SqlalchemyAdapter(driver),
        execute=lambda connection, sql: connection.execute(text(sql)),
        commits=False,
        sizes=lambda _, maximum: {"pool_size": maximum, "max_overflow": 0},
    )


class TestAsyncpg(AdapterContract[AsyncEngine, AsyncConnection]):
    @pytest.fixture
    def subject(self) -> Subject[AsyncEngine, AsyncConnection]:
        return subject_of("asyncpg")


class TestPsycopg(AdapterContract[AsyncEngine, AsyncConnection]):
    @pytest.fixture
    def subject(self) -> Subject[AsyncEngine, AsyncConnection]:
        return subject_of("psycopg")
