"""What a DSN says has its effect over asyncpg."""

import pytest
from tests.adapters.dsn_suite import DsnSubject, DsnSuite

from pyscopg2.asyncpg import PoolManager


class TestDsn(DsnSuite):
    @pytest.fixture
    def subject(self) -> DsnSubject:
        return DsnSubject(
            PoolManager,
            lambda connection, sql: connection.fetchval(sql),
            {"min_size": 1, "max_size": 2},
            is_libpq=False,
            work_mem={"server_settings": {"work_mem": "2MB"}},
        )
