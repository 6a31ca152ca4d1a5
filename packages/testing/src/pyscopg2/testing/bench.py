"""One adapter on one server, for the tests of `pyscopg2.testing.contract`."""

import asyncio
import gc
import itertools
import os
import signal
import time
import types
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar, cast

import psutil
import pytest

from pyscopg2.core.adapter import Adapter, ClosesPools, ConnT, EndsBlocks, PoolT, Reserves
from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.testing.cluster import LocalCluster, Node
from pyscopg2.testing.contracts.gaps import GAP, GAPS
from pyscopg2.testing.contracts.running import run_in_time
from pyscopg2.testing.contracts.verbs import Verbs, watched

SOON = 5.0
"""Seconds within which what happens at once has happened, on however slow a machine."""

AT_ONCE = 1.0
"""Seconds for what is to happen at once, once in three times on a machine that is busy."""

PATIENCE = 30.0
"""Seconds for the server to do its part."""

A_MOMENT = 0.05
"""Seconds given to what cannot end, since its server is frozen, to get well under way."""

TABLES = """
    CREATE TABLE contract (item text);
    CREATE TABLE deferring (item text UNIQUE DEFERRABLE INITIALLY DEFERRED);
"""
"""What the tests write to."""

T = TypeVar("T")

_QUERIES = ("fetch_scalar",)
"""Verbs that may have to wait until a test has seen its query at work."""

_names = itertools.count(1)


def _min_max_size(minimum: int, maximum: int) -> dict[str, Any]:
    return {"min_size": minimum, "max_size": maximum}


@dataclass(frozen=True)
class Subject(Generic[PoolT, ConnT]):
    """The adapter, and what its tests have to know of its driver."""

    adapter: Adapter[PoolT, ConnT]
    execute: Callable[[ConnT, str], Awaitable[object]]
    """Runs a statement as a user of the driver would, in whatever transaction that opens."""
    commits: bool
    """Whether a block that ends without an error commits what `execute` did: psycopg's do. False
    for drivers that do not, be it that each statement commits by itself or that nothing does."""
    sizes: Callable[[int, int], Mapping[str, Any]] = _min_max_size
    """The driver's pool options for so many connections at least, and at most."""
    autocommit: bool = False
    """Whether a statement by `execute` is committed at once."""
    transactions: Mapping[str, Callable[[ConnT], AbstractAsyncContextManager[object]]] = field(
        default_factory=dict[str, Any]
    )
    """The ways in which users of the driver commit by themselves, each as a block whose end
    commits what `execute` did in it: ``{"transaction()": lambda c: c.transaction()}``. One whose
    connection was cut off meanwhile must raise."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further pool options for every pool."""
    hooks: Callable[[Callable[[], None]], Mapping[str, Any]] | None = None
    """Given a function, the pool options with which the driver calls it once at each acquire, in
    the task that acquires, where its users can have such a hook."""
    codecs: Mapping[str, Any] | None = None
    """Pool options with which the driver gives its users other values than the server wrote (text
    above all), where it has codecs, type adapters or row factories."""
    sqlstates: bool = True
    """False declares that the driver does not tell SQLSTATEs; see `contracts.gaps.GAPS` for this
    and the next ones."""
    cancels_connects: bool = True
    """False declares that a connect goes on, in the driver, when it is cancelled."""
    terminates_queries: bool = True
    """False declares that a query goes on when its connection is terminated."""

    @property
    def gaps(self) -> tuple[str, ...]:
        """The names of those that are declared."""
        return tuple(name for name in GAPS if not getattr(self, name))


class Bench(Generic[PoolT, ConnT]):
    """One adapter, one server, and shortcuts."""

    def __init__(
        self, subject: Subject[PoolT, ConnT], cluster: LocalCluster, node: Node | None = None
    ) -> None:
        """``node``: by default the primary."""
        self.subject = subject
        self.verbs = Verbs()
        """The adapter's that are under way."""
        self.adapter = watched(subject.adapter, self.verbs)
        self.cluster = cluster
        self.node: Node = cluster.primary if node is None else node
        self.name = f"contract-{next(_names)}"
        """The application_name of this test's backends."""
        self.has_failed = False
        self._before = {each.laddr for each in self._connections()}
        """What others have left open to this server is no matter of this test's."""

    def run(self, main: Coroutine[Any, Any, None], /) -> None:
        """Run a test in a loop of its own, and see that no task is left in it."""

        async def check() -> None:
            before = asyncio.all_tasks()
            await main
            until = time.monotonic() + SOON
            while left := asyncio.all_tasks() - before:
                assert time.monotonic() < until, f"tasks left: {left}"
                await asyncio.sleep(0.01)

        __tracebackhide__ = True
        self.has_failed = True
        run_in_time(
            check(),
            self.verbs,
            verb_limit=lambda name: PATIENCE if name in _QUERIES else 2 * SOON,
            limit=10 * PATIENCE,
            blocked=SOON,
            relieve=partial(self.cluster.thaw, self.node),
        )
        self.has_failed = False

    def needs(self, *abilities: str) -> None:
        """Skip the test where the subject declares that its driver lacks one of these."""
        skip_without(self.subject, *abilities)

    def tells(self, exc: BaseException | None, *codes: str) -> None:
        """The error, or one that it came from, has one of these SQLSTATEs."""
        if self.subject.sqlstates:
            told = {self.adapter.sqlstate(link) for link in chain(exc)}
            assert told & set(codes), (
                f"sqlstate() tells {told}, not {' or '.join(codes)}, of {exc!r} and its causes"
            )

    def target(self, **changes: str) -> Target:
        """The server as the superuser; ``changes`` of user, password and dbname, or further
        params."""
        user = changes.get("user", self.cluster.user)
        password = changes.get("password", self.cluster.password)
        dbname = changes.get("dbname", self.cluster.database)
        (target,) = parse_dsn(
            f"postgresql://{user}:{password}@{self.node.address}/{dbname}"
            f"?application_name={self.name}{changes.get('params', '')}"
        )
        return target

    def sizes(self, minimum: int, maximum: int) -> Mapping[str, Any]:
        """The options for a pool of so many connections at least, and at most, and one more.

        That one is the monitor's, but where the adapter `Reserves`: there it is one more for users,
        so that the tests which use this find the same pool everywhere.
        """
        more = isinstance(self.adapter, Reserves)
        return self.subject.sizes(minimum + more, maximum + more)

    async def create(self, target: Target, **options: Any) -> PoolT:
        sizes = self.sizes(1, 2)
        return await self.adapter.create_pool(
            target, **{**self.subject.options, **sizes, **options}
        )

    def pool(
        self, minimum: int, maximum: int, **options: Any
    ) -> AbstractAsyncContextManager[PoolT]:
        """A pool with one slot more than the maximum, see `sizes`."""
        return self._pool({**self.sizes(minimum, maximum), **options})

    def pool_of_size(self, minimum: int, maximum: int) -> AbstractAsyncContextManager[PoolT]:
        """A pool as a user asks for it."""
        return self._pool(self.subject.sizes(minimum, maximum))

    @asynccontextmanager
    async def _pool(self, options: Mapping[str, Any]) -> AsyncGenerator[PoolT]:
        """Closed where the test went well, terminated where it failed."""
        pool = await self.adapter.create_pool(self.target(), **{**self.subject.options, **options})
        try:
            yield pool
            await self.soon(self.close_pool(pool))
        finally:
            await self.adapter.terminate_pool(pool)

    async def acquire(self, pool: PoolT) -> ConnT:
        return await self.adapter.acquire_from_pool(pool)

    async def release(self, connection: ConnT, pool: PoolT) -> None:
        await self.adapter.release_to_pool(connection, pool)

    async def fetch(self, connection: ConnT, query: str) -> object:
        return await self.adapter.fetch_scalar(connection, query)

    async def pid_of(self, connection: ConnT) -> int:
        return int(str(await self.fetch(connection, "SELECT pg_backend_pid()")))

    async def end(self, *tasks: asyncio.Future[Any]) -> None:
        """Wait until they have ended, however they do; what does not is cancelled, and left."""
        _, left = await asyncio.wait(tasks, timeout=SOON)
        if left:
            hangs = str(self.verbs)
            for task in left:
                task.cancel()
            pytest.fail(f"it did not end within {SOON:g} s: it waits for {hangs}")

    async def soon(self, work: Awaitable[T]) -> T:
        """What comes of it, or its error; it has to end in either."""
        task = asyncio.ensure_future(work)
        await self.end(task)
        return task.result()

    async def fails(self, work: Awaitable[object], why: str) -> Exception:
        """The error in which it ends; ``why`` it has to."""
        task = asyncio.ensure_future(work)
        await self.end(task)
        assert not task.cancelled(), f"it ended as if this task had been cancelled: {why}"
        error = task.exception()
        assert isinstance(error, Exception), f"it ended as a success: {why}"
        return error

    async def refuses(self, work: Awaitable[object], kind: type[Exception], why: str) -> None:
        """It ends in an error of this kind; ``why`` it has to."""
        error = await self.fails(work, why)
        assert isinstance(error, kind), f"{kind.__name__} is asked for, not {error!r}: {why}"

    async def release_quietly(self, connection: ConnT, pool: PoolT) -> None:
        """A release that may raise, as that of a broken connection may, but must not hang."""
        await self._quietly(self.adapter.release_to_pool(connection, pool))

    async def end_block(self, connection: ConnT, exc: BaseException | None) -> None:
        """Nothing where the adapter has no such verb, as the core does."""
        if isinstance(self.adapter, EndsBlocks):
            blocks = cast("EndsBlocks[ConnT]", self.adapter)
            ending = blocks.end_block(connection, exc)
            if ending is not None:
                await ending

    async def close_pool(self, pool: PoolT) -> None:
        """Terminate it where the adapter has no such verb, as the core does."""
        if isinstance(self.adapter, ClosesPools):
            closes = cast("ClosesPools[PoolT]", self.adapter)
            await closes.close_pool(pool)
        else:
            await self.adapter.terminate_pool(pool)

    async def end_block_quietly(self, connection: ConnT) -> None:
        await self._quietly(self.end_block(connection, None))

    async def _quietly(self, ending: Awaitable[object]) -> None:
        try:
            await self.soon(ending)
        except AttributeError:
            raise
        except Exception:
            pass

    async def all_slots_are_free(self, pool: PoolT) -> None:
        """As many connections as the pool's maximum can be taken, all different, all working."""
        maxsize = self.size_of(pool)
        taken = await self.take(pool, maxsize)
        pids = {await self.fetch(connection, "SELECT pg_backend_pid()") for connection in taken}
        assert len(pids) == maxsize, "two who acquired have been given the same connection"
        for connection in taken:
            await self.release(connection, pool)

    def size_of(self, pool: PoolT) -> int:
        size = self.adapter.get_pool_maxsize(pool)
        assert size is not None, (
            "get_pool_maxsize() is None, which says that there is no limit, of a pool that was"
            " given one: users would queue in the driver"
        )
        return size

    async def take(self, pool: PoolT, count: int) -> list[ConnT]:
        """So many connections, of a pool that has them."""
        taken: list[ConnT] = []
        for _ in range(count):
            acquiring = asyncio.ensure_future(self.acquire(pool))
            await asyncio.wait({acquiring}, timeout=SOON)
            if not acquiring.done():
                acquiring.cancel()
                pytest.fail(
                    f"connections are out: get_pool_maxsize() is {count}, and acquire_from_pool()"
                    f" did not end within {SOON:g} s with {len(taken)} taken"
                )
            taken.append(acquiring.result())
        return taken

    async def insert(self, connection: ConnT) -> str:
        item = f"{self.name}-{next(_names)}"
        await self.subject.execute(connection, f"INSERT INTO contract VALUES ('{item}')")
        return item

    # Asked of the system, beside the driver

    def sockets(self) -> int:
        """How many connections to the server this process has, beside those from before."""
        return len(self._own_connections())

    def _own_connections(self) -> list[Any]:
        return [each for each in self._connections() if each.laddr not in self._before]

    def _connections(self) -> list[Any]:
        return [
            each
            for each in psutil.Process().net_connections("tcp")
            if each.raddr and each.raddr.port == self.node.port
        ]

    async def all_hang_up(self) -> None:
        """Until the kernel has seen the end of all connections to the server, and the event loop
        has had its chance to tell the driver."""
        until = time.monotonic() + SOON
        while any(each.status == psutil.CONN_ESTABLISHED for each in self._own_connections()):
            assert time.monotonic() < until, "the server keeps its connections"
            await asyncio.sleep(0.001)
        for _ in range(5):
            await asyncio.sleep(0)

    async def sockets_close(self, rest: int | None = 0) -> None:
        """Until no more than ``rest`` sockets are open."""
        until = time.monotonic() + SOON
        while self.sockets() > (rest or 0):
            assert time.monotonic() < until, f"sockets are left open: {self.sockets()}"
            await asyncio.sleep(0.001)

    def thaw_backend(self, pid: int) -> None:
        """Let one process of the frozen server go on: nobody new gets in."""
        os.kill(pid, signal.SIGCONT)

    # Asked of the server, beside the driver

    def psql(self, sql: str) -> str:
        return self.cluster.psql(self.node, sql)

    def is_there(self, item: str) -> bool:
        return self.psql(f"SELECT count(*) FROM contract WHERE item = '{item}'") == "1"

    def open_transactions(self) -> int:
        return int(
            self.psql(
                "SELECT count(*) FROM pg_stat_activity"
                f" WHERE application_name = '{self.name}' AND xact_start IS NOT NULL"
            )
        )

    async def no_transactions(self) -> None:
        """None of this test's connections has one open, or has a moment later: one that was dropped
        ends by itself."""
        until = time.monotonic() + SOON
        while self.open_transactions():
            assert time.monotonic() < until, "a transaction is left open"
            await asyncio.sleep(0.01)

    def backends(self) -> int:
        return int(
            self.psql(
                f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{self.name}'"
            )
        )

    def end_sleepers(self) -> None:
        """A server notices a dead client only when it has something to say to it."""
        self.psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE application_name = '{self.name}' AND wait_event = 'PgSleep'"
        )

    def end_backends(self) -> None:
        """As an administrator, or a restart, would."""
        self.psql(
            f"SELECT pg_terminate_backend(pid, {SOON:.0f}000) FROM pg_stat_activity"
            f" WHERE application_name = '{self.name}'"
        )

    def cancel_queries(self) -> None:
        """As an administrator, or a statement_timeout, would."""
        self.psql(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
            f" WHERE application_name = '{self.name}'"
        )

    async def until_running(self, count: int = 1) -> None:
        """Until the server runs so many of this test's long queries."""
        until = time.monotonic() + PATIENCE
        while count > int(
            self.psql(
                "SELECT count(*) FROM pg_stat_activity"
                f" WHERE application_name = '{self.name}' AND wait_event = 'PgSleep'"
            )
        ):
            assert time.monotonic() < until, "the query did not arrive"
            await asyncio.sleep(0.01)

    async def no_backends(self) -> None:
        self.end_sleepers()
        until = time.monotonic() + SOON
        while self.backends():
            assert time.monotonic() < until, "backends are left"
            await asyncio.sleep(0.01)

    def tidy(self) -> None:
        """After the test: it has left nothing, or what a failed one has left is ended."""
        self.cluster.thaw(self.node)
        if self.has_failed:
            gc.collect()
            self.end_backends()
        else:
            self.wait_for_no_backends()

    def wait_for_no_backends(self) -> None:
        asyncio.run(self.no_backends())


def told_gaps(suite: object, subject: Subject[Any, Any]) -> list[tuple[str, str]]:
    """For a test's report: what users of this driver lose. The run tells it at its end."""
    suite_name = type(suite).__name__
    return [(GAP, f"{suite_name}: {gap}=False. {GAPS[gap]}") for gap in subject.gaps]


def skip_without(subject: Subject[Any, Any], *abilities: str) -> None:
    """Skip the test where the subject declares that its driver lacks one of these."""
    for gap in subject.gaps:
        if gap in abilities:
            pytest.skip(f"a declared gap: {gap}=False")


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: set[int] = set()
    # An error that is raised while one that it has caused is handled has that as its context.
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        exc = exc.__cause__ or exc.__context__


@contextmanager
def without_garbage_collector() -> Generator[None]:
    """What has to be closed is closed by whoever opened it, now, and not by chance."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@types.coroutine
def cancelled_at(
    awaitable: Awaitable[T], turn: int, late: bool, cancel: Callable[[], object] | None = None
) -> Generator[Any, Any, T]:
    """Go through ``awaitable``, and cancel the current task the ``turn``-th time it suspends: once,
    unless ``cancel`` does it in another way.

    While it waits; or late: when what it waits for has come, and it has yet to hear of it.
    """
    if cancel is None:
        cancel = cast("asyncio.Task[T]", asyncio.current_task()).cancel
    steps = awaitable.__await__()
    try:
        pending = next(steps)
        for suspended in itertools.count():
            if suspended == turn and not late:
                cancel()
            value: Any = None
            thrown: BaseException | None = None
            try:
                value = yield pending
                if suspended == turn and late:
                    cancel()
                    yield
            except BaseException as exc:
                thrown = exc
            # Not in the handler: what is raised there has a context that it would not have else.
            pending = steps.send(value) if thrown is None else steps.throw(thrown)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise AssertionError("unreachable")
