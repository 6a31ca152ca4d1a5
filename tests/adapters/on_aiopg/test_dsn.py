"""What a DSN says has its effect over aiopg."""

from typing import Any

import pytest
from psycopg2.extensions import make_dsn, parse_dsn
from tests.adapters.dsn_suite import DsnSubject, DsnSuite

from pyscopg2.aiopg import PoolManager


async def scalar(connection: Any, sql: str) -> object:
    async with connection.cursor() as cursor:
        await cursor.execute(sql)
        return (await cursor.fetchone())[0]


class TestDsn(DsnSuite):
    @pytest.fixture
    def subject(self) -> DsnSubject:
        return DsnSubject(
            PoolManager,
            scalar,
            {"minsize": 1, "maxsize": 2},
            fileno=lambda connection: connection.raw.fileno(),
            read=lambda target: parse_dsn(make_dsn(**target.to_kwargs())),
        )
