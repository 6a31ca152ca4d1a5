"""asyncpgsa's adapter and manager keep their contracts."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from pyscopg2.asyncpgsa import AsyncpgsaAdapter, PoolManager
from pyscopg2.testing.contract import AdapterContract, Subject
from pyscopg2.testing.manager_contract import ManagerContract, ManagerSubject

if TYPE_CHECKING:
    from asyncpg import Connection, Pool, Record
    from asyncpg.pool import PoolConnectionProxy


def hooks(call: Callable[[], None]) -> dict[str, Any]:
    async def setup(connection: object) -> None:
        call()

    return {"setup": setup}


async def set_codecs(connection: "Connection[Record]") -> None:
    await connection.set_type_codec("text", schema="pg_catalog", encoder=str, decoder="<{}>".format)


SUBJECT: "Subject[Pool[Record], PoolConnectionProxy[Record]]" = Subject(
    AsyncpgsaAdapter(),
    execute=lambda connection, sql: connection.execute(sql),
    commits=False,
    autocommit=True,
    transactions={"transaction()": lambda connection: connection.transaction()},
    hooks=hooks,
    codecs={"init": set_codecs},
)


class TestAsyncpgsa(AdapterContract["Pool[Record]", "PoolConnectionProxy[Record]"]):
    @pytest.fixture
    def subject(self) -> "Subject[Pool[Record], PoolConnectionProxy[Record]]":
        return SUBJECT


class TestPoolManager(ManagerContract["Pool[Record]", "PoolConnectionProxy[Record]"]):
    @pytest.fixture
    def subject(self) -> "ManagerSubject[Pool[Record], PoolConnectionProxy[Record]]":
        return ManagerSubject(
            PoolManager,
            SUBJECT,
            errors=(
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
                OSError,
            ),
            acquire_kwargs={"timeout": 5},
            release_kwargs={"timeout": 5},
            # It leaves this behind where a task is cancelled that connects.
            noise=("unexpected connection_lost() call",),
        )
