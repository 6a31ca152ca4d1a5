"""What every adapter must do, as tests: subclass `AdapterContract` with one fixture.

::

    class TestMyAdapter(AdapterContract[MyPool, MyConnection]):
        @pytest.fixture
        def subject(self) -> Subject[MyPool, MyConnection]:
            return Subject(MyAdapter(), execute=execute, sizes=sizes, commits=False)

The tests run against a real PostgreSQL server (`LocalCluster`), each in an event loop of its own.
They are the executable half of `pyscopg2.core.adapter.Adapter`: that says what each verb promises,
and these tests show what goes wrong where it does not hold.
"""

import asyncio
import gc
import itertools
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic

import pytest

from pyscopg2.core.adapter import Adapter, ConnT, PoolT
from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.testing.cluster import LocalCluster, Node

__all__ = ("AdapterContract", "Subject")

SOON = 5.0
"""Seconds within which what happens at once has happened, on however slow a machine."""

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
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further pool options for every pool."""


class AdapterContract(Generic[PoolT, ConnT]):
    """The contract; give it the fixture `subject`."""

    # The server

    @pytest.fixture(scope="class")
    @classmethod
    def contract_cluster(cls) -> Iterator[LocalCluster]:
        with LocalCluster(replicas=0) as cluster:
            cluster.psql(cluster.primary, "CREATE TABLE contract (item text)")
            yield cluster

    @pytest.fixture
    def bench(
        self, subject: Subject[PoolT, ConnT], contract_cluster: LocalCluster
    ) -> Iterator["Bench[PoolT, ConnT]"]:
        bench = Bench(subject, contract_cluster)
        yield bench
        contract_cluster.thaw(bench.node)
        bench.wait_for_no_backends()

    # Pools

    def test_a_pool_has_one_place_more_than_the_user_asked_for(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with bench.pool(1, 3) as pool:
                assert bench.adapter.get_pool_maxsize(pool) == 4

        bench.run(main())

    def test_free_and_maximum_size_add_up_under_load(self, bench: "Bench[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with bench.pool(0, 3) as pool:
                taken: list[ConnT] = []
                for out in range(4):
                    assert bench.adapter.get_pool_freesize(pool) == 4 - out
                    taken.append(await bench.acquire(pool))
                assert bench.adapter.get_pool_freesize(pool) == 0
                for back, connection in enumerate(taken, 1):
                    await bench.release(connection, pool)
                    assert bench.adapter.get_pool_freesize(pool) == back

        bench.run(main())

    def test_a_refused_connect_is_known_when_the_pool_is_created(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            with socket.socket() as unused:
                unused.bind(("127.0.0.1", 0))
                (target,) = parse_dsn(f"postgresql://u:p@127.0.0.1:{unused.getsockname()[1]}/d")
                with pytest.raises(Exception) as caught:
                    await asyncio.wait_for(bench.create(target), SOON)
                assert not isinstance(caught.value, TimeoutError | TypeError | ValueError)
                assert bench.adapter.sqlstate(caught.value) is None

        bench.run(main())

    @pytest.mark.parametrize(
        ("change", "sqlstate"),
        [({"password": "wrong-s3cret"}, "28P01"), ({"dbname": "nowhere"}, "3D000")],
        ids=["wrong password", "unknown database"],
    )
    def test_a_server_that_refuses_says_why(
        self, bench: "Bench[PoolT, ConnT]", change: dict[str, str], sqlstate: str
    ) -> None:
        async def main() -> None:
            with pytest.raises(Exception) as caught:
                await asyncio.wait_for(bench.create(bench.target(**change)), SOON)
            codes = {bench.adapter.sqlstate(link) for link in _chain(caught.value)}
            told = sqlstate in codes or any(
                "password authentication" in str(link) or "does not exist" in str(link)
                for link in _chain(caught.value)
            )
            assert told, caught.value
            assert all("wrong-s3cret" not in str(link) for link in _chain(caught.value))

        bench.run(main())

    def test_an_unknown_pool_option_is_an_error_at_once(self, bench: "Bench[PoolT, ConnT]") -> None:
        async def main() -> None:
            with pytest.raises(TypeError):
                await bench.create(bench.target(), no_such_option=1)

        bench.run(main())

    def test_a_pool_whose_creation_is_cancelled_leaves_nothing(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            bench.cluster.freeze(bench.node)
            creation = asyncio.ensure_future(bench.create(bench.target()))
            await asyncio.sleep(0.05)
            creation.cancel()
            bench.cluster.thaw(bench.node)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(creation, SOON)

        bench.run(main())

    def test_closing_a_pool_ends_its_backends(self, bench: "Bench[PoolT, ConnT]") -> None:
        async def main() -> None:
            pool = await bench.create(bench.target())
            await asyncio.wait_for(bench.adapter.close_pool(pool), SOON)
            await bench.no_backends()

        bench.run(main())

    def test_terminating_a_pool_waits_for_nobody(self, bench: "Bench[PoolT, ConnT]") -> None:
        async def main() -> None:
            pool = await bench.create(bench.target())
            connection = await bench.acquire(pool)
            query = asyncio.ensure_future(bench.fetch(connection, "SELECT pg_sleep(60)"))
            await bench.until_running()
            await asyncio.wait_for(bench.adapter.terminate_pool(pool), SOON)
            # The core terminates what it knows to be out before it terminates the pool; drivers
            # whose pools forget what is out rely on that.
            bench.adapter.terminate_connection(connection)
            with pytest.raises(Exception):
                await asyncio.wait_for(query, SOON)
            await bench.no_backends()

        bench.run(main())

    def test_terminating_a_pool_of_a_frozen_server_and_again(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            pool = await bench.create(bench.target())
            connection = await bench.acquire(pool)
            bench.cluster.freeze(bench.node)
            bench.adapter.terminate_connection(connection)
            for _ in range(2):
                await asyncio.wait_for(bench.adapter.terminate_pool(pool), SOON)
            bench.cluster.thaw(bench.node)
            await bench.no_backends()

        bench.run(main())

    # Connections

    def test_an_acquired_connection_works_and_is_reused(self, bench: "Bench[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with bench.pool(1, 1) as pool:
                pids: set[object] = set()
                for _ in range(3):
                    connection = await bench.acquire(pool)
                    assert not bench.adapter.is_connection_closed(connection)
                    pids.add(await bench.fetch(connection, "SELECT pg_backend_pid()"))
                    await bench.release(connection, pool)
                assert len(pids) <= 2  # the user's place and the monitor's

        bench.run(main())

    def test_an_unknown_acquire_argument_is_an_error_at_once(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with bench.pool(1, 1) as pool:
                with pytest.raises(TypeError):
                    await bench.adapter.acquire_from_pool(pool, no_such_argument=1)
                await bench.all_places_are_free(pool)

        bench.run(main())

    def test_a_cancelled_acquire_leaves_nothing_out(self, bench: "Bench[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with bench.pool(0, 3) as pool:
                for turns in range(40):
                    acquiring = asyncio.ensure_future(bench.acquire(pool))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    acquiring.cancel()
                    try:
                        connection = await asyncio.wait_for(acquiring, SOON)
                    except asyncio.CancelledError:
                        continue
                    await bench.release(connection, pool)
                await bench.all_places_are_free(pool)

        bench.run(main())

    def test_releasing_a_broken_connection_frees_its_place(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                for _ in range(3):
                    connection = await bench.acquire(pool)
                    pid = await bench.fetch(connection, "SELECT pg_backend_pid()")
                    bench.psql(f"SELECT pg_terminate_backend({pid})")
                    with pytest.raises(Exception):
                        await asyncio.wait_for(bench.fetch(connection, "SELECT 1"), SOON)
                    assert bench.adapter.is_connection_closed(connection)
                    await bench.release_quietly(connection, pool)
                await bench.all_places_are_free(pool)

        bench.run(main())

    def test_releasing_a_terminated_connection_frees_its_place(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                for _ in range(3):
                    connection = await bench.acquire(pool)
                    for _ in range(2):
                        bench.adapter.terminate_connection(connection)
                    assert bench.adapter.is_connection_closed(connection)
                    await bench.release_quietly(connection, pool)
                    bench.adapter.terminate_connection(connection)
                await bench.all_places_are_free(pool)

        bench.run(main())

    def test_a_double_release_frees_nothing_twice(self, bench: "Bench[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with bench.pool(0, 2) as pool:
                connection = await bench.acquire(pool)
                await bench.release(connection, pool)
                await bench.release_quietly(connection, pool)
                assert bench.adapter.get_pool_freesize(pool) == 3
                await bench.all_places_are_free(pool)

        bench.run(main())

    @pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
    def test_a_cancelled_release_leaves_nothing_out(
        self, bench: "Bench[PoolT, ConnT]", frozen: bool
    ) -> None:
        async def main() -> None:
            async with bench.pool(0, 3) as pool:
                for turns in range(1, 12):  # with none, it would not even have begun
                    connection = await bench.acquire(pool)
                    if turns % 2:
                        await bench.insert(connection)
                    if frozen:
                        bench.cluster.freeze(bench.node)
                    releasing = asyncio.ensure_future(bench.release(connection, pool))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    releasing.cancel()
                    done, _ = await asyncio.wait([releasing], timeout=SOON)
                    assert done, "the release did not end when it was cancelled"
                    if frozen:
                        bench.cluster.thaw(bench.node)
                await bench.all_places_are_free(pool)
                assert bench.open_transactions() == 0

        bench.run(main())

    def test_a_pool_may_end_while_a_cancelled_release_hangs(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            pool = await bench.create(bench.target())
            connection = await bench.acquire(pool)
            bench.cluster.freeze(bench.node)
            releasing = asyncio.ensure_future(bench.release(connection, pool))
            for _ in range(5):
                await asyncio.sleep(0)
            releasing.cancel()
            await asyncio.wait([releasing], timeout=SOON)
            await asyncio.wait_for(bench.adapter.terminate_pool(pool), SOON)
            bench.cluster.thaw(bench.node)
            await bench.no_backends()

        bench.run(main())

    @pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
    def test_terminating_a_connection_ends_its_pending_query_at_once(
        self, bench: "Bench[PoolT, ConnT]", frozen: bool
    ) -> None:
        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                connection = await bench.acquire(pool)
                query = asyncio.ensure_future(bench.fetch(connection, "SELECT pg_sleep(60)"))
                await bench.until_running()
                if frozen:
                    bench.cluster.freeze(bench.node)
                bench.adapter.terminate_connection(connection)
                began = time.monotonic()
                with pytest.raises(Exception):
                    await asyncio.wait_for(asyncio.shield(query), SOON)
                assert query.done(), "the query did not end within a generous time"
                assert time.monotonic() - began < SOON
                await bench.release_quietly(connection, pool)
                bench.cluster.thaw(bench.node)
                bench.end_sleepers()

        bench.run(main())

    # The role query

    def test_fetch_scalar_gives_the_first_column_of_the_first_row(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                connection = await bench.acquire(pool)
                assert await bench.fetch(connection, "SELECT 'a b', 2") == "a b"
                assert await bench.fetch(connection, "SHOW transaction_read_only") == "off"
                assert await bench.fetch(connection, "SELECT concat_ws('%', 1, 2)") == "1%2"
                await bench.release(connection, pool)

        bench.run(main())

    def test_fetch_scalar_leaves_no_transaction_open(self, bench: "Bench[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                connection = await bench.acquire(pool)
                await bench.fetch(connection, "SELECT 1")
                assert bench.open_transactions() == 0
                with pytest.raises(Exception) as caught:
                    await bench.fetch(connection, "SELECT no_such_function()")
                codes = {bench.adapter.sqlstate(link) for link in _chain(caught.value)}
                assert "42883" in codes
                assert bench.open_transactions() == 0
                assert str(await bench.fetch(connection, "SELECT 1")) == "1"
                await bench.release(connection, pool)

        bench.run(main())

    def test_sqlstate_of_what_no_server_sent_is_none(self, bench: "Bench[PoolT, ConnT]") -> None:
        for exc in (ValueError("42601"), OSError(111, "refused"), asyncio.CancelledError()):
            assert bench.adapter.sqlstate(exc) is None

    # Blocks

    def test_a_block_that_ends_well_ends_as_the_drivers_own(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                connection = await bench.acquire(pool)
                item = await bench.insert(connection)
                await bench.adapter.end_block(connection, None)
                await bench.release(connection, pool)
                expected = bench.subject.commits or bench.subject.autocommit
                assert bench.is_there(item) is expected
                assert bench.open_transactions() == 0

        bench.run(main())

    def test_a_block_that_raises_keeps_nothing_that_was_not_committed(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                connection = await bench.acquire(pool)
                item = await bench.insert(connection)
                await bench.adapter.end_block(connection, RuntimeError("the block's"))
                await bench.release(connection, pool)
                assert bench.is_there(item) is bench.subject.autocommit
                assert bench.open_transactions() == 0

        bench.run(main())

    def test_a_block_whose_connection_was_terminated_never_looks_committed(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                connection = await bench.acquire(pool)
                item = await bench.insert(connection)
                bench.adapter.terminate_connection(connection)
                if bench.subject.commits:
                    with pytest.raises(Exception):
                        await asyncio.wait_for(bench.adapter.end_block(connection, None), SOON)
                else:
                    await bench.end_block_quietly(connection)
                await bench.release_quietly(connection, pool)
                assert bench.is_there(item) is bench.subject.autocommit

        bench.run(main())


class Bench(Generic[PoolT, ConnT]):
    """One adapter, one server, and shortcuts."""

    def __init__(self, subject: Subject[PoolT, ConnT], cluster: LocalCluster) -> None:
        self.subject = subject
        self.adapter = subject.adapter
        self.cluster = cluster
        self.node: Node = cluster.primary
        self.name = f"contract-{next(_names)}"
        """The application_name of this test's backends."""

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a test in a loop of its own, and see that no task is left in it, and no exception
        that nobody asked for."""
        unheard: list[str] = []

        async def check() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: unheard.append(str(context))
            )
            before = asyncio.all_tasks()
            await main
            until = time.monotonic() + SOON
            while left := asyncio.all_tasks() - before:
                assert time.monotonic() < until, f"tasks left: {left}"
                await asyncio.sleep(0.01)

        asyncio.run(check())
        gc.collect()
        assert not unheard

    def target(self, **changes: str) -> Target:
        user = changes.get("user", self.cluster.user)
        password = changes.get("password", self.cluster.password)
        dbname = changes.get("dbname", self.cluster.database)
        (target,) = parse_dsn(
            f"postgresql://{user}:{password}@{self.node.address}/{dbname}"
            f"?application_name={self.name}"
        )
        return target

    async def create(self, target: Target, **options: Any) -> PoolT:
        sizes = self.subject.sizes(1, 2)
        return await self.adapter.create_pool(
            target, **{**self.subject.options, **sizes, **options}
        )

    @asynccontextmanager
    async def pool(self, minimum: int, maximum: int) -> AsyncGenerator[PoolT]:
        """A pool, closed where the test went well, terminated where it failed."""
        sizes = self.subject.sizes(minimum, maximum)
        pool = await self.adapter.create_pool(self.target(), **{**self.subject.options, **sizes})
        try:
            yield pool
            await asyncio.wait_for(self.adapter.close_pool(pool), SOON)
        finally:
            await self.adapter.terminate_pool(pool)

    async def acquire(self, pool: PoolT) -> ConnT:
        return await self.adapter.acquire_from_pool(pool)

    async def release(self, connection: ConnT, pool: PoolT) -> None:
        await self.adapter.release_to_pool(connection, pool)

    async def fetch(self, connection: ConnT, query: str) -> object:
        return await self.adapter.fetch_scalar(connection, query)

    async def release_quietly(self, connection: ConnT, pool: PoolT) -> None:
        """A release that may raise, as that of a broken connection may, but must not hang."""
        await self._quietly(self.adapter.release_to_pool(connection, pool))

    async def end_block_quietly(self, connection: ConnT) -> None:
        await self._quietly(self.adapter.end_block(connection, None))

    async def _quietly(self, ending: Awaitable[object]) -> None:
        try:
            await asyncio.wait_for(ending, SOON)
        except TimeoutError:
            raise
        except Exception as exc:
            assert not isinstance(exc, AttributeError), exc

    async def all_places_are_free(self, pool: PoolT) -> None:
        """As many connections as the pool's maximum can be taken, all different, all working."""
        maxsize = self.adapter.get_pool_maxsize(pool)
        assert maxsize is not None
        taken = [await asyncio.wait_for(self.acquire(pool), SOON) for _ in range(maxsize)]
        pids = {await self.fetch(connection, "SELECT pg_backend_pid()") for connection in taken}
        assert len(pids) == maxsize
        for connection in taken:
            await self.release(connection, pool)
        assert self.adapter.get_pool_freesize(pool) == maxsize

    async def insert(self, connection: ConnT) -> str:
        item = f"{self.name}-{next(_names)}"
        await self.subject.execute(connection, f"INSERT INTO contract VALUES ('{item}')")
        return item

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
            f" WHERE application_name = '{self.name}' AND query LIKE '%pg_sleep%'"
        )

    async def until_running(self) -> None:
        """Until the server runs this test's long query."""
        until = time.monotonic() + SOON
        while not int(
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

    def wait_for_no_backends(self) -> None:
        asyncio.run(self.no_backends())


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
