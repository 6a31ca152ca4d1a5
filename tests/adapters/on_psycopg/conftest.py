"""What the tests of psycopg's adapter share."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import psycopg_pool.pool_async
import pytest

from pyscopg2.psycopg import PsycopgAdapter
from pyscopg2.testing.cluster import LocalCluster


@pytest.fixture(autouse=True)
def quiet_pool() -> Iterator[None]:
    """The pool logs exceptions as objects, and pytest keeps what is logged: so a connect that was
    cancelled would live in its traceback, and with it the socket, until the test has ended."""
    logger = logging.getLogger("psycopg.pool")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=1) as cluster:
        cluster.psql(cluster.primary, "CREATE TABLE items (item text)")
        cluster.wait_streaming()
        yield cluster


@pytest.fixture
def alone() -> Iterator[LocalCluster]:
    """A primary of this test's own, to be broken."""
    with LocalCluster(replicas=0) as cluster:
        cluster.psql(cluster.primary, "CREATE TABLE items (item text)")
        yield cluster


@pytest.fixture
def adapter() -> PsycopgAdapter:
    return PsycopgAdapter()


class BusyLock(asyncio.Lock):
    """One for which everybody has to wait."""

    async def acquire(self) -> Any:
        for _ in range(2):
            await asyncio.sleep(0)
        return await super().acquire()


@pytest.fixture
def busy_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool's lock is contended whenever somebody wants it."""
    monkeypatch.setattr(psycopg_pool.pool_async, "ALock", BusyLock)
