"""One manager's class on one cluster, for the tests of `pyscopg2.testing.manager_contract`."""

import asyncio
import gc
import inspect
import re
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, Generic, cast

import pytest

from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.core.topology import Role
from pyscopg2.testing.bench import PATIENCE, SOON, skip_without
from pyscopg2.testing.cluster import LocalCluster, Node
from pyscopg2.testing.contracts.healing import heal
from pyscopg2.testing.contracts.manager.subject import ManagerSubject
from pyscopg2.testing.contracts.running import run_in_time
from pyscopg2.testing.contracts.verbs import Verbs, watched

__all__ = ("SIZE", "Desk")

SIZE = 2
"""Connections that users may have, per host."""

ACCEPTS_WRITES = re.compile(
    r"^(\d+\.\d+) .*(?:archive recovery complete|system is ready to accept connections)",
    re.MULTILINE,
)
"""Of a server's log: where a promotion, or a start, is over."""


class Desk(Generic[PoolT, ConnT]):
    """One manager's class, one cluster, and shortcuts."""

    def __init__(
        self, subject: ManagerSubject[PoolT, ConnT], cluster: LocalCluster, name: str
    ) -> None:
        self.subject = subject
        self.verbs = Verbs()
        """The adapter's that are under way."""
        self.has_failed = False
        self._manager = _watched(subject.manager, self.verbs)
        self.cluster = cluster
        self.name = re.sub(r"\W", "-", name).removeprefix("test_")[:63]
        """The application_name of this test's backends."""
        cluster.psql(cluster.primary, "TRUNCATE surface")

    def needs(self, *abilities: str) -> None:
        """Skip the test where the subject declares that its driver lacks one of these."""
        skip_without(self.subject.driver, *abilities)

    def run(self, main: Coroutine[Any, Any, None], /) -> None:
        """Run a test in a loop of its own, and see that nothing is left in it."""
        unheard: list[dict[str, Any]] = []

        async def check() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, told: unheard.append(told))
            before = asyncio.all_tasks()
            await main
            await self.until(lambda: asyncio.all_tasks() <= before, "all tasks have ended")

        __tracebackhide__ = True
        self.has_failed = True
        run_in_time(
            check(),
            self.verbs,
            verb_limit=lambda _: 2 * PATIENCE,
            limit=2 * PATIENCE,
            blocked=SOON,
            relieve=self._thaw,
        )
        told = self.without_noise(map(repr, unheard))
        assert told == [], "the event loop's exception handler was told of something"
        self.has_failed = False

    def end_leftovers(self) -> None:
        """Of a failed test: the next one finds the servers well, and nobody on them."""
        gc.collect()
        heal(self.cluster)
        for node in self.cluster.nodes:
            self.cluster.psql(node, self._ending_backends())

    def _thaw(self) -> None:
        for node in self.cluster.nodes:
            self.cluster.thaw(node)

    def without_noise(self, told: Iterable[str]) -> list[str]:
        noise = self.subject.noise
        return [each for each in told if each and not any(word in each for word in noise)]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Ask, and await the answer where it is awaitable, until it is true."""
        until = time.monotonic() + PATIENCE
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            assert time.monotonic() < until, f"not within {PATIENCE:g} s: {what}"
            await asyncio.sleep(0.01)

    # Managers

    def dsn(self, dsn: str | None = None) -> str:
        plain = self.cluster.dsn if dsn is None else dsn
        scheme = self.subject.scheme
        return f"{scheme}{plain.removeprefix('postgresql')}?application_name={self.name}"

    def make(self, dsn: str | None = None, **settings: Any) -> BasePoolManager[PoolT, ConnT]:
        driver = self.subject.driver
        options = {**driver.options, **driver.sizes(0, SIZE)}
        defaults: dict[str, Any] = {"acquire_timeout": PATIENCE, "pool_factory_kwargs": options}
        # On a busy machine, no host that is well is to miss a check.
        defaults["refresh_timeout"] = SOON
        return self._manager(self.dsn(dsn), **{**defaults, **settings})

    @asynccontextmanager
    async def manager(
        self, dsn: str | None = None, *, ready: bool = True, **settings: Any
    ) -> AsyncGenerator[BasePoolManager[PoolT, ConnT]]:
        """Of all hosts, unless there is a DSN; it is terminated in the end."""
        manager = self.make(dsn, **settings)
        try:
            if ready:
                await manager.ready(timeout=PATIENCE)
            yield manager
        finally:
            await manager.terminate()

    def node(self, name: str) -> Node:
        return next(node for node in self.cluster.nodes if node.name == name)

    def pool_of(self, manager: BasePoolManager[PoolT, ConnT], node: Node) -> PoolT:
        """`manager.pools` are those in service, in the order of the DSN."""
        serving = [host.address for host in manager.topology if host.serving]
        return manager.pools[serving.index(node.address)]

    def hooked(self, hook: Callable[[], object]) -> dict[str, Any]:
        """The pool's options with which its driver calls it at each acquire."""
        driver = self.subject.driver
        if driver.hooks is None:
            pytest.skip("the subject has no hooks")

        def call() -> None:
            hook()

        return {**driver.options, **driver.sizes(0, SIZE), **driver.hooks(call)}

    @asynccontextmanager
    async def watching(
        self, manager: BasePoolManager[PoolT, ConnT]
    ) -> AsyncGenerator[dict[str, BaseException | None]]:
        """Which hosts were out of service meanwhile, and why, as far as a look at every turn of the
        event loop tells."""
        lost: dict[str, BaseException | None] = {}

        async def look() -> None:
            while True:
                lost.update(
                    {host.address: host.error for host in manager.topology if not host.serving}
                )
                await asyncio.sleep(0.001)

        looking = asyncio.create_task(look())
        try:
            yield lost
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    async def becomes(self, manager: BasePoolManager[PoolT, ConnT], node: Node, role: Role) -> None:
        """Wait until a host has the role and, where it is one that serves, a pool."""
        may_serve = role in (Role.MASTER, Role.REPLICA)

        def has_become() -> bool:
            host = manager.topology[node.address]
            return host.role is role and host.serving is may_serve

        await self.until(has_become, f"{node!r} becomes {role}")

    def knows(self, manager: BasePoolManager[PoolT, ConnT], pool: PoolT) -> bool:
        """Whether the pool is one of this manager's still."""
        try:
            manager.get_pool_freesize(pool)
        except ValueError:
            return False
        return True

    def refuses(
        self,
        manager: BasePoolManager[PoolT, ConnT],
        pool: PoolT,
        connection: ConnT | None = None,
    ) -> None:
        """The pool is not one of this manager's, or not any more."""
        assert pool not in manager.pools, "a retired pool is among the pools"
        assert not manager.pool_is_master(pool), "a retired pool has a role"
        assert not manager.pool_is_replica(pool), "a retired pool has a role"
        for ask in (
            manager.get_pool_freesize,
            manager.get_last_response_time,
            manager.acquire_from_pool,
        ):
            with pytest.raises(ValueError, match="not a pool of this manager"):
                ask(pool)
        if connection is not None:
            with pytest.raises(ValueError, match="not a pool of this manager"):
                manager.register_connection(connection, pool)

    # Connections

    async def hold_all(self, manager: BasePoolManager[PoolT, ConnT], *nodes: Node) -> list[ConnT]:
        """Take every connection that users can have on these nodes."""
        return [
            await manager.acquire_from_pool(self.pool_of(manager, node))
            for node in nodes
            for _ in range(manager.get_pool_freesize(self.pool_of(manager, node)))
        ]

    async def release_all(
        self, manager: BasePoolManager[PoolT, ConnT], connections: list[ConnT]
    ) -> None:
        for connection in connections:
            await manager.release(connection)

    async def all_slots_are_free(
        self, manager: BasePoolManager[PoolT, ConnT], node: Node | None = None
    ) -> None:
        """Of the primary by default, to the manager and to the driver alike; and they work."""
        node = self.cluster.primary if node is None else node
        pool = self.pool_of(manager, node)
        await self.until(lambda: manager.get_pool_freesize(pool) == SIZE, "nothing is out")
        async with asyncio.timeout(SOON):
            held = await self.hold_all(manager, node)
            for connection in held:
                assert await self.server_of(manager, connection) == node.name, (
                    "a connection of another server"
                )
            await self.release_all(manager, held)
        assert len(held) == SIZE, "the driver has as many slots as the manager counts"

    async def server_of(self, manager: BasePoolManager[PoolT, ConnT], connection: ConnT) -> str:
        """The name of the server behind a connection."""
        return str(await manager.adapter.fetch_scalar(connection, "SHOW cluster_name"))

    async def pid_of(self, manager: BasePoolManager[PoolT, ConnT], connection: ConnT) -> int:
        """The server's process behind a connection."""
        shown = await manager.adapter.fetch_scalar(connection, "SELECT pg_backend_pid()")
        return int(str(shown))

    async def end_backend(self, manager: BasePoolManager[PoolT, ConnT], connection: ConnT) -> None:
        await self.end_process(await self.pid_of(manager, connection))

    async def end_process(self, pid: int) -> None:
        """Of the primary's, as an administrator would."""
        await self.psql(f"SELECT pg_terminate_backend({pid}, {SOON:.0f}000)")

    async def insert(self, connection: ConnT, item: str) -> None:
        await self.subject.driver.execute(connection, f"INSERT INTO surface VALUES ('{item}')")

    def has(self, item: str) -> bool:
        sql = f"SELECT EXISTS (SELECT FROM surface WHERE item = '{item}')"
        return self.cluster.psql(self.cluster.primary, sql) == "t"

    async def writer(
        self, manager: BasePoolManager[PoolT, ConnT], timeout: float | None = None
    ) -> str:
        """Write and commit; the name of the server that took it."""
        async with manager.acquire_master(timeout=timeout) as connection:
            name = await self.server_of(manager, connection)
            await self.insert(connection, "written")
            await self.subject.commit(connection)
        return name

    async def reader(self, manager: BasePoolManager[PoolT, ConnT]) -> str:
        """The name of the server that a read goes to."""
        async with manager.acquire_replica() as connection:
            return await self.server_of(manager, connection)

    def start_sleeping(self, connection: ConnT) -> "asyncio.Future[object]":
        return asyncio.ensure_future(
            self.subject.driver.execute(connection, "SELECT pg_sleep(600)")
        )

    async def sleeps(self) -> None:
        """Until the primary works on what `start_sleeping` asked."""

        async def asleep() -> bool:
            return bool(await self.backends("AND wait_event = 'PgSleep'"))

        await self.until(asleep, "the query runs")

    # Beside the driver

    async def psql(self, sql: str) -> str:
        """Of the primary."""
        return await asyncio.to_thread(self.cluster.psql, self.cluster.primary, sql)

    async def end_all_backends(self) -> None:
        """Of this test, on all servers."""
        for node in self.cluster.nodes:
            await asyncio.to_thread(self.cluster.psql, node, self._ending_backends())

    def _ending_backends(self) -> str:
        return (
            f"SELECT pg_terminate_backend(pid, {SOON:.0f}000) FROM pg_stat_activity"
            f" WHERE application_name = '{self.name}'"
        )

    async def backends(self, where: str = "") -> list[int]:
        """The processes of this test's connections, on the primary."""
        sql = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{self.name}' {where}"
        return [int(pid) for pid in (await self.psql(sql)).split()]

    async def pid_of_monitor(
        self, manager: BasePoolManager[PoolT, ConnT], held: list[ConnT]
    ) -> int:
        """On the primary, all of whose connections for users are held: the one that is left."""
        users = {await self.pid_of(manager, connection) for connection in held}
        left = [pid for pid in await self.backends() if pid not in users]
        assert len(left) == 1, f"the monitor has one connection, and users have {len(users)}"
        return left[0]

    async def outage(
        self, manager: BasePoolManager[PoolT, ConnT], node: Node, end: Callable[[], None]
    ) -> float:
        """Seconds from the moment at which a server says that it accepts writes until the first
        one of three users, who try all the time, has one acknowledged."""
        seen = len(node.log_file.read_text())

        async def keep_trying() -> float:
            while True:
                try:
                    if await self.writer(manager) == node.name:
                        return time.time()
                except self.subject.errors:
                    pass
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as users:
            writing = [users.create_task(keep_trying()) for _ in range(3)]
            await asyncio.to_thread(end)
        told = ACCEPTS_WRITES.search(node.log_file.read_text(), seen)
        assert told is not None, node.log_tail()
        return min(task.result() for task in writing) - float(told[1])


def _watched(
    manager: type[BasePoolManager[PoolT, ConnT]], verbs: Verbs
) -> type[BasePoolManager[PoolT, ConnT]]:
    """The same manager, whose adapters tell ``verbs`` what they do."""
    own = cast(Any, manager)
    adapters = {scheme: watched(each, verbs) for scheme, each in own.adapters.items()}
    namespace: dict[str, Any] = {"adapter": watched(own.adapter, verbs), "adapters": adapters}
    return type(manager.__name__, (manager,), namespace)
