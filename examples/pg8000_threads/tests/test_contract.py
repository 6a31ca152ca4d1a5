"""pg8000 fulfils both contracts."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from pg8000.native import DatabaseError, InterfaceError

from pg8000_threads import Connection, Pg8000Adapter, Pool, PoolManager
from pyscopg2.testing.contract import AdapterContract, Subject
from pyscopg2.testing.manager_contract import ManagerContract, ManagerSubject


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncGenerator[None]:
    await connection.run("BEGIN")
    yield
    await connection.run("COMMIT")


SUBJECT: Subject[Pool, Connection] = Subject(
    Pg8000Adapter(),
    execute=lambda connection, sql: connection.run(sql),
    commits=False,
    autocommit=True,
    transactions={"BEGIN": transaction},
)


class TestPg8000(AdapterContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> Subject[Pool, Connection]:
        return SUBJECT


class TestPg8000Manager(ManagerContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> ManagerSubject[Pool, Connection]:
        return ManagerSubject(PoolManager, SUBJECT, errors=(DatabaseError, InterfaceError, OSError))
