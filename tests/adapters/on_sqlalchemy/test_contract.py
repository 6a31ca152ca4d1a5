"""SQLAlchemy's adapter and manager keep their contracts, over either driver."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from pyscopg2.sqlalchemy import PoolManager, SqlalchemyAdapter
from pyscopg2.testing.contract import AdapterContract, Subject
from pyscopg2.testing.manager_contract import ManagerContract, ManagerSubject


@asynccontextmanager
async def commit(connection: AsyncConnection) -> AsyncGenerator[None]:
    yield
    await connection.commit()


@asynccontextmanager
async def commit_session(connection: AsyncConnection) -> AsyncGenerator[None]:
    async with AsyncSession(bind=connection, join_transaction_mode="control_fully") as session:
        yield
        await session.execute(text("SELECT 1"))
        await session.commit()


def subject_of(driver: str) -> Subject[AsyncEngine, AsyncConnection]:
    return Subject(
        SqlalchemyAdapter(driver),
        execute=lambda connection, sql: connection.execute(text(sql)),
        commits=False,
        transactions={
            "begin()": lambda connection: connection.begin(),
            "commit()": commit,
            "AsyncSession.commit()": commit_session,
        },
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


def manager_subject_of(
    driver: str, *errors: type[Exception]
) -> ManagerSubject[AsyncEngine, AsyncConnection]:
    return ManagerSubject(
        PoolManager,
        subject_of(driver),
        errors=(SQLAlchemyError, *errors, OSError),
        commit=lambda connection: connection.commit(),
        scheme=f"postgresql+{driver}",
        # asyncpg's own, where a connect is cancelled.
        noise=("TLSUpgradeProto", "unexpected connection_lost() call"),
    )


class TestPoolManagerOverAsyncpg(ManagerContract[AsyncEngine, AsyncConnection]):
    @pytest.fixture
    def subject(self) -> ManagerSubject[AsyncEngine, AsyncConnection]:
        return manager_subject_of("asyncpg", asyncpg.PostgresError, asyncpg.InterfaceError)


class TestPoolManagerOverPsycopg(ManagerContract[AsyncEngine, AsyncConnection]):
    @pytest.fixture
    def subject(self) -> ManagerSubject[AsyncEngine, AsyncConnection]:
        return manager_subject_of("psycopg", psycopg.Error)
