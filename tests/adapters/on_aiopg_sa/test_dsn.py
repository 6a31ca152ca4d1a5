"""What a DSN says has its effect over aiopg.sa."""

from typing import Any

import pytest
from psycopg2.extensions import make_dsn, parse_dsn
from tests.adapters.dsn_suite import DsnSubject, DsnSuite

from pyscopg2.aiopg_sa import PoolManager
from pyscopg2.core.dsn import Target


def read(target: Target) -> dict[str, Any]:
    settings: dict[str, Any] = dict(target.to_kwargs())
    return parse_dsn(make_dsn(**settings))


class TestDsn(DsnSuite):
    @pytest.fixture
    def subject(self) -> DsnSubject:
        return DsnSubject(
            PoolManager,
            lambda connection, sql: connection.scalar(sql),
            {"minsize": 1, "maxsize": 2},
            fileno=lambda connection: connection.connection.raw.fileno(),
            read=read,
        )
