"""What a DSN says has its effect over aiopg."""

from typing import Any

import pytest
from psycopg2.extensions import make_dsn, parse_dsn
from tests.adapters.dsn_suite import DsnSubject, DsnSuite

from pyscopg2.aiopg import PoolManager
from pyscopg2.core.dsn import Target


async def scalar(connection: Any, sql: str) -> object:
    async with connection.cursor() as cursor:
        await cursor.execute(sql)
        return (await cursor.fetchone())[0]


def read(target: Target) -> dict[str, Any]:
    settings: dict[str, Any] = dict(target.to_kwargs())
    return parse_dsn(make_dsn(**settings))


class TestDsn(DsnSuite):
    @pytest.fixture
    def subject(self) -> DsnSubject:
        return DsnSubject(
            PoolManager,
            scalar,
            {"minsize": 1, "maxsize": 2},
            fileno=lambda connection: connection.raw.fileno(),
            read=read,
        )
