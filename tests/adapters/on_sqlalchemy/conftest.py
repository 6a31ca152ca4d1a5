"""A cluster for these tests, and managers that leave nothing behind."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
from tests.support.waiting import eventually

from pyscopg2.sqlalchemy import PoolManager
from pyscopg2.testing.cluster import LocalCluster

from .support import TESTED, MakeManager, no_backends, with_driver

TABLES = "CREATE TABLE notes (id serial PRIMARY KEY, body text NOT NULL)"


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """A primary and a replica, with an empty table `notes`; tests leave them as they were."""
    with LocalCluster(replicas=1) as cluster:
        cluster.psql(cluster.primary, TABLES)
        cluster.wait_streaming()
        yield cluster


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def make_manager(cluster: LocalCluster, driver: str) -> AsyncIterator[MakeManager]:
    """Makes managers over each of the drivers, and sees that nothing is left of them."""
    managers: list[PoolManager] = []
    unhandled: list[dict[str, Any]] = []

    def handle(_: object, context: dict[str, Any]) -> None:
        # asyncpg's own, where a connect is cancelled while it asks for TLS.
        shown = repr(context)
        if "TLSUpgradeProto" not in shown and "unexpected connection_lost() call" not in shown:
            unhandled.append(context)

    asyncio.get_running_loop().set_exception_handler(handle)

    def make(dsn: str | None = None, params: str = "", **options: Any) -> PoolManager:
        plain = f"{dsn or cluster.dsn}?application_name={TESTED.name}{params}"
        dsn = with_driver(plain, driver)
        options.setdefault("acquire_timeout", 20.0)
        manager = PoolManager(dsn, **options)
        managers.append(manager)
        return manager

    cluster.psql(cluster.primary, "TRUNCATE notes")
    yield make
    for manager in managers:
        await manager.terminate()
    me = asyncio.current_task()
    await eventually(lambda: asyncio.all_tasks() <= {me}, "all tasks have ended")
    for node in cluster.nodes:
        await eventually(partial(no_backends, cluster, node), f"no backend is left on {node!r}")
    assert unhandled == []
