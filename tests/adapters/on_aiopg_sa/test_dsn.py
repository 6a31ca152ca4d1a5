"""What a DSN says has its effect over aiopg.sa."""

import pytest
from psycopg2.extensions import make_dsn, parse_dsn
from tests.adapters.dsn_suite import DsnSubject, DsnSuite

from pyscopg2.aiopg_sa import PoolManager


class TestDsn(DsnSuite):
    @pytest.fixture
    def subject(self) -> DsnSubject:
        return DsnSubject(
            PoolManager,
            lambda connection, sql: connection.scalar(sql),
            {"minsize": 1, "maxsize": 2},
            fileno=lambda connection: connection.connection.raw.fileno(),
            read=lambda target: parse_dsn(make_dsn(**target.to_kwargs())),
        )
