"""What a DSN says has its effect over SQLAlchemy, with either driver."""

from collections.abc import Mapping
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import text
from tests.adapters.dsn_suite import DsnSubject, DsnSuite

from pyscopg2.core.dsn import Target
from pyscopg2.sqlalchemy import PoolManager
from pyscopg2.sqlalchemy.drivers import DRIVERS


async def scalar(connection: Any, sql: str) -> object:
    return await connection.scalar(text(sql))


def read(target: Target) -> Mapping[str, Any]:
    """What psycopg's connect makes of its arguments."""
    return conninfo_to_dict(make_conninfo(**DRIVERS["psycopg"].connect_args(target, {})))


def subject_of(driver: str, work_mem: Mapping[str, Any] | None = None) -> DsnSubject:
    return DsnSubject(
        PoolManager,
        scalar,
        {"pool_size": 1, "max_overflow": 1},
        scheme=f"postgresql+{driver}://",
        is_libpq=driver == "psycopg",
        read=read if driver == "psycopg" else None,
        work_mem=work_mem,
    )


class TestAsyncpg(DsnSuite):
    @pytest.fixture
    def subject(self) -> DsnSubject:
        own = {"connect_args": {"server_settings": {"work_mem": "2MB"}}}
        return subject_of("asyncpg", own)


class TestPsycopg(DsnSuite):
    @pytest.fixture
    def subject(self) -> DsnSubject:
        return subject_of("psycopg")
