"""One cluster for all tests, and managers that leave nothing behind."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
import uvloop

from pyscopg2.asyncpg import PoolManager
from pyscopg2.testing.cluster import ClusterError, LocalCluster, Node
from pyscopg2.testing.contracts.healing import heal

from .support import APPLICATION, WRITES, MakeManager, as_application, backends_end, tasks_end

TEST_TIMEOUT = 60.0
"""Seconds after which a test that hangs fails, and shows where."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _bounded(item.obj)


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The tests of `test_uvloop` are tests of other modules, on another loop."""
    if item.path.stem == "test_uvloop":
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(TEST_TIMEOUT):
            await test(*args, **kwargs)

    return run


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[LocalCluster]:
    settings = {
        "max_connections": "100",
        # A server that works on a query does not look whether its client is still there.
        "client_connection_check_interval": "100ms",
    }
    with LocalCluster(settings=settings) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: LocalCluster) -> LocalCluster:
    """A primary and two replicas, all well. The test leaves its servers as they are."""
    return shared_cluster


@pytest.fixture
def breakable_cluster(shared_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The same cluster, with an empty table `writes`, for tests that kill, freeze and promote."""
    shared_cluster.psql(shared_cluster.primary, WRITES)
    shared_cluster.wait_streaming()
    try:
        yield shared_cluster
    finally:
        try:
            heal(shared_cluster)
        except ClusterError:
            shared_cluster.close()
            shared_cluster.start()
            raise
    for node in shared_cluster.nodes:
        _await_no_backends(shared_cluster, node)


def _await_no_backends(cluster: LocalCluster, node: Node) -> None:
    """Those on a server that was frozen learn only now that their clients have gone."""
    cluster.psql(
        node,
        "DO $$ BEGIN FOR i IN 1..1500 LOOP"
        " PERFORM pg_stat_clear_snapshot();"
        f" IF NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = '{APPLICATION}')"
        " THEN RETURN; END IF;"
        " PERFORM pg_sleep(0.01);"
        " END LOOP; RAISE 'backends are left'; END $$",
    )


@pytest.fixture
async def make_manager(shared_cluster: LocalCluster) -> AsyncIterator[MakeManager]:
    """A function that makes managers, for all hosts of the cluster and with few connections.

    When the test is over they are terminated; no task and no backend may be left then, and no
    error may have been nobody's.
    """
    managers: list[PoolManager] = []
    unhandled: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()

    def collect(_: object, context: dict[str, Any]) -> None:
        # asyncpg leaves this behind where a task is cancelled that connects.
        if str(context.get("exception")) != "unexpected connection_lost() call":
            unhandled.append(context)

    loop.set_exception_handler(collect)

    def make(dsn: str | None = None, **options: Any) -> PoolManager:
        settings: dict[str, Any] = {"acquire_timeout": 20.0} | options
        sizes = {"min_size": 0, "max_size": 2}
        settings["pool_factory_kwargs"] = sizes | settings.get("pool_factory_kwargs", {})
        manager = PoolManager(dsn or as_application(shared_cluster.dsn), **settings)
        managers.append(manager)
        return manager

    yield make
    for manager in managers:
        await manager.terminate()
    await tasks_end()
    await backends_end(shared_cluster)
    assert unhandled == []
