"""What the tests of aiopg's two adapters share: the driver, its cluster, and shortcuts."""

import asyncio
import contextlib
import gc
import sys
import warnings
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import anyio
import pytest
from aiopg.connection import Connection
from tests.support.application import Application, sockets
from tests.support.waiting import PATIENCE

from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import ReservedConnection, Reserves
from pyscopg2.core.adapter.stepping import resume
from pyscopg2.core.dsn import Target
from pyscopg2.testing import bench
from pyscopg2.testing.cluster import LocalCluster, Node

SIZE = 3
"""Slots in the pools under test."""

TESTED = Application("aiopg-suite")
"""All connections under test."""


@dataclass(frozen=True)
class Driver:
    """An adapter, and what its tests have to know of its connections."""

    adapter: Any
    manager: type[BasePoolManager[Any, Any]]
    raw: Callable[[Any], Connection]
    """aiopg's connection under the user's."""

    async def execute(self, connection: Any, sql: str) -> None:
        async with self.raw(connection).cursor() as cursor:
            await cursor.execute(sql)


class Suite:
    """Tests of a driver, which a subclass names by the fixture `driver`."""

    @pytest.fixture(scope="class")
    @classmethod
    def whole_cluster(cls) -> Iterator[LocalCluster]:
        with LocalCluster(replicas=1) as cluster:
            cluster.psql(cluster.primary, "CREATE TABLE items (item text)")
            cluster.wait_streaming()
            yield cluster

    @pytest.fixture
    def cluster(self, whole_cluster: LocalCluster) -> Iterator[LocalCluster]:
        """A primary and a replica; after the test neither is frozen, and no backend is left."""
        yield whole_cluster
        for node in whole_cluster.nodes:
            whole_cluster.thaw(node)
            # A server that works on a query does not look whether its client is still there.
            TESTED.end_backends(whole_cluster, node)
            asyncio.run(TESTED.no_backends(whole_cluster, node))


def living(referred: Iterable[weakref.ref[Any]]) -> bool:
    gc.collect()
    return any(each() is not None for each in referred)


def result_of(task: asyncio.Future[Any]) -> Any:
    return None if task.cancelled() or task.exception() is not None else task.result()


def manage(driver: Driver, cluster: LocalCluster, **arguments: Any) -> BasePoolManager[Any, Any]:
    defaults: dict[str, Any] = {"acquire_timeout": PATIENCE}
    return driver.manager(f"{cluster.dsn}?application_name={TESTED.name}", **(defaults | arguments))


def raw_of(connection: ReservedConnection) -> Connection:
    raw = cast(Any, connection).raw
    assert isinstance(raw, Connection)
    return raw


@contextlib.asynccontextmanager
async def opened(driver: Driver, target: Target, **options: Any) -> AsyncGenerator[Any]:
    pool = await driver.adapter.create_pool(target, **options)
    try:
        yield pool
    finally:
        await driver.adapter.terminate_pool(pool)


@contextlib.asynccontextmanager
async def reserved(
    driver: Driver, target: Target, **options: Any
) -> AsyncGenerator[ReservedConnection]:
    connection = await cast("Reserves", driver.adapter).reserve(target, **options)
    try:
        yield connection
    finally:
        connection.terminate()


async def prepare(driver: Driver, connection: Any, state: str) -> None:
    """Bring a connection into a state in which it is given back, or its block ends."""
    if state == "broken":
        driver.adapter.terminate_connection(connection)
    elif state != "idle":
        if isinstance(connection, Connection):
            await driver.execute(connection, "BEGIN")
        else:
            await connection.begin()
        if state == "half ended":
            # The driver's own transaction, where it has one, does not know of its end.
            await driver.execute(connection, "COMMIT")


async def pid(driver: Driver, connection: Any) -> object:
    return await driver.adapter.fetch_scalar(connection, "SELECT pg_backend_pid()")


async def all_can_be_taken(driver: Driver, pool: Any) -> None:
    """As many as the pool's maximum, all different, all working, and the pool's count agrees."""
    maxsize = pool.maxsize
    assert free(pool) == maxsize
    async with asyncio.timeout(PATIENCE):
        taken = [await driver.adapter.acquire_from_pool(pool) for _ in range(maxsize)]
    assert len({await pid(driver, connection) for connection in taken}) == maxsize
    assert (pool.size, pool.freesize) == (maxsize, 0)
    for connection in taken:
        await driver.adapter.release_to_pool(connection, pool)
    assert (pool.size, pool.freesize) == (maxsize, maxsize)


async def cancelled_at(
    verb: Callable[[], Awaitable[Any]], turn: int, repeated: bool
) -> tuple[bool, Any]:
    """Run a verb in a task, and cancel that the ``turn``-th time it suspends: once, or from then on
    at each await, as a scope of anyio's does. Whether it suspended so often, and its result."""
    struck = False

    async def run() -> Any:
        nonlocal struck
        scope = anyio.CancelScope()
        task = cast("asyncio.Task[Any]", asyncio.current_task())

        def strike() -> None:
            nonlocal struck
            struck = True
            if repeated:
                scope.cancel()
            else:
                task.cancel()

        with scope:
            result = await bench.cancelled_at(verb(), turn, False, strike)
            # A scope cancels where it finds the task waiting: not at all where that was the end.
            assert not task.cancelling(), "what was cancelled went on"
            return result

    task = asyncio.ensure_future(run())
    _, left = await asyncio.wait({task}, timeout=PATIENCE)
    assert not left, "it did not end when it was cancelled"
    return struck, None if task.cancelled() else task.result()


@contextlib.contextmanager
def ignored(warning: type[Warning]) -> Generator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", warning)
        yield


@contextlib.contextmanager
def closes_what_it_opens(node: Node) -> Generator[None]:
    """Without the garbage collector."""

    with bench.without_garbage_collector():
        before = sockets(node)
        yield
        assert sockets(node) == before, "sockets are left open"


def begun(awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    """Its first step at once, the rest in a task."""
    steps = awaitable.__await__()
    try:
        pending = next(steps)
    except StopIteration as stop:
        done = asyncio.get_running_loop().create_future()
        done.set_result(stop.value)
        return done
    return asyncio.ensure_future(resume(steps, pending))


def of(verb: Callable[..., Awaitable[Any]], *arguments: Any) -> Callable[[], Awaitable[Any]]:
    return lambda: verb(*arguments)


def sleeping(cluster: LocalCluster) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    return int(cluster.psql(cluster.primary, sql))


def free(pool: Any) -> int:
    """How many connections could be taken now, opened or not."""
    return int((pool.maxsize or sys.maxsize) - pool.size + pool.freesize)


async def end_block(driver: Driver, connection: Any) -> None:
    """As the core does, where the adapter has something to do there."""
    end = getattr(driver.adapter, "end_block", None)
    ending = None if end is None else end(connection, None)
    if ending is not None:
        await ending
