"""What a DSN says has its effect over psycopg."""

from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict
from tests.adapters.dsn_suite import DsnSubject, DsnSuite

from pyscopg2.psycopg import PoolManager


async def scalar(connection: Any, sql: str) -> object:
    row = await (await connection.execute(sql)).fetchone()
    return row[0]


class TestDsn(DsnSuite):
    @pytest.fixture
    def subject(self) -> DsnSubject:
        return DsnSubject(
            PoolManager,
            scalar,
            {"min_size": 1, "max_size": 2},
            fileno=lambda connection: connection.fileno(),
            read=lambda target: conninfo_to_dict(target.to_conninfo()),
        )
