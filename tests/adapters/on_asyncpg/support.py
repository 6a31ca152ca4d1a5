"""What asyncpg's tests share with asyncpgsa's: the driver below both is the same."""

import asyncio
import gc
import inspect
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
import pytest
from tests.support.application import sockets
from tests.support.cancelling import cancelled_at
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.testing.cluster import LocalCluster, Node
from pyscopg2.testing.fault_proxy import Addressed

T = TypeVar("T")


LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What users of a connection get when it ends."""

KEPT_BY_A_TIMER = "init_size" not in inspect.signature(asyncpg.create_pool).parameters
"""Before 0.32, asyncpg's timers for idle connections live on when their pool is terminated."""

_names = itertools.count(1)


@dataclass(frozen=True)
class Driver:
    """Asyncpg, or asyncpgsa."""

    adapter: Any
    manager: Any
    connection_class: Any
    """Of its connections: classes of users' own have to derive from it."""


class Suite:
    """Tests of the driver that a subclass names."""

    driver: Driver

    @pytest.fixture(scope="class")
    @classmethod
    def cluster(cls) -> Iterator[LocalCluster]:
        with LocalCluster(replicas=0) as cluster:
            cluster.psql(cluster.primary, "CREATE TABLE items (item text)")
            yield cluster

    @pytest.fixture
    def bench(self, cluster: LocalCluster) -> Iterator["Bench"]:
        bench = Bench(self.driver, cluster)
        yield bench
        for node in cluster.nodes:
            cluster.thaw(node)
            asyncio.run(bench.no_backends(node))


class Bench:
    """One test's connections."""

    def __init__(self, driver: Driver, cluster: LocalCluster) -> None:
        self.adapter = driver.adapter
        self.manager_class = driver.manager
        self.connection_class = driver.connection_class
        self.cluster = cluster
        self.node = cluster.primary
        self.name = f"asyncpg-{next(_names)}"
        """The application_name of this test's backends."""

    def dsn(self, where: Addressed | None = None) -> str:
        cluster, where = self.cluster, where or self.node
        account = f"{cluster.user}:{cluster.password}"
        address = f"{where.host}:{where.port}"
        return f"postgresql://{account}@{address}/{cluster.database}?application_name={self.name}"

    def target(self, where: Addressed | None = None, **params: str) -> Target:
        more = "".join(f"&{name}={value}" for name, value in params.items())
        (target,) = parse_dsn(self.dsn(where) + more)
        return target

    @asynccontextmanager
    async def pool(self, where: Addressed | None = None, /, **options: Any) -> AsyncGenerator[Any]:
        options = {"min_size": 0, "max_size": 1, **options}
        pool = await self.adapter.create_pool(self.target(where), **options)
        try:
            yield pool
        finally:
            await self.adapter.terminate_pool(pool)

    @asynccontextmanager
    async def reserved(
        self, where: Addressed | None = None, /, **options: Any
    ) -> AsyncGenerator[Any]:
        connection = await self.adapter.reserve(self.target(where), **options)
        try:
            yield connection
        finally:
            connection.terminate()

    async def acquire(self, pool: Any) -> Any:
        return await asyncio.wait_for(self.adapter.acquire_from_pool(pool), PATIENCE)

    async def release(self, connection: Any, pool: Any) -> None:
        await asyncio.wait_for(self.adapter.release_to_pool(connection, pool), PATIENCE)

    async def all_can_be_taken(self, pool: Any) -> None:
        """Different ones, which work."""
        taken = [await self.acquire(pool) for _ in range(self.adapter.get_pool_maxsize(pool))]
        pids = {await connection.fetchval("SELECT pg_backend_pid()") for connection in taken}
        assert len(pids) == len(taken)
        for connection in taken:
            await self.release(connection, pool)
        assert free(pool) == len(taken)

    # Asked of the server and the system, beside the driver

    async def psql(self, sql: str, node: Node | None = None) -> str:
        return await asyncio.to_thread(self.cluster.psql, node or self.node, sql)

    async def end_backends(self) -> None:
        """As an administrator would, all but our own."""
        await self.psql(
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity"
            f" WHERE application_name = '{self.name}'"
        )

    async def no_backends(self, node: Node | None = None) -> None:
        # A server notices a dead client only when it has something to say to it.
        sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name"
        await eventually(self._says(f"{sql} = '{self.name}'", "0", node))

    async def running(self, what: str) -> None:
        """Until a statement with these words runs."""
        where = f"application_name = '{self.name}' AND state = 'active' AND query LIKE '%{what}%'"
        await eventually(self._says(f"SELECT count(*) FROM pg_stat_activity WHERE {where}", "1"))

    def _says(
        self, sql: str, answer: str, node: Node | None = None
    ) -> Callable[[], Awaitable[bool]]:
        async def says() -> bool:
            return await self.psql(sql, node) == answer

        return says

    def sockets(self) -> int:
        return sockets(self.node)


async def interrupted(awaitable: Awaitable[T], turn: int, *, again: bool = False) -> T:
    """The same in a task of its own: `asyncio.CancelledError` where it came so far."""
    task = asyncio.ensure_future(_run(cancelled_at(awaitable, turn, again=again)))
    done, _ = await asyncio.wait({task}, timeout=PATIENCE)
    assert done, "it did not end when it was cancelled"
    result = task.result()
    assert not task.cancelling(), "it went on when it was cancelled"
    return result


async def _run(awaitable: Awaitable[T]) -> T:
    return await awaitable


def alive(*kinds: type[Any]) -> int:
    """How many objects of exactly these classes there are."""
    gc.collect()
    return sum(type(each) in kinds for each in gc.get_objects())


class RoundTrips:
    """An address in front of a server, where the questions are counted."""

    def __init__(self, server: Addressed) -> None:
        self._target = server
        self.count = 0
        self.port = 0

    @property
    def host(self) -> str:
        return "127.0.0.1"

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator["RoundTrips"]:
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accept, self.host)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(self._target.host, self._target.port)
        asked = False

        async def ask() -> None:
            nonlocal asked
            while data := await reader.read(65536):
                # What comes before an answer is of one question.
                self.count += not asked
                asked = True
                forth.write(data)

        async def answer() -> None:
            nonlocal asked
            while data := await back.read(65536):
                asked = False
                writer.write(data)

        pending = [asyncio.ensure_future(ask()), asyncio.ensure_future(answer())]
        try:
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            forth.transport.abort()
            writer.transport.abort()


def free(pool: Any) -> int:
    """How many connections could be taken now, opened or not."""
    return int(pool.get_max_size() - pool.get_size() + pool.get_idle_size())
