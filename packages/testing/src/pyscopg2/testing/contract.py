"""What every adapter must do, as tests: subclass `AdapterContract` with one fixture.

::

    class TestMyAdapter(AdapterContract[MyPool, MyConnection]):
        @pytest.fixture
        def subject(self) -> Subject[MyPool, MyConnection]:
            return Subject(
                MyAdapter(), execute=execute, sizes=sizes, commits=False, transactions=transactions
            )

The tests run against a real PostgreSQL server (`LocalCluster`), each in an event loop of its own.
They are the executable half of `pyscopg2.core.adapter.Adapter`: that says what each verb promises,
and these tests show what goes wrong where it does not hold. They ask no more than the core needs:
where a driver may take its time, they terminate the connection or let the server go on, as the
core and life do.
"""

import asyncio
import gc
import itertools
import os
import random
import signal
import socket
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
from typing import Any, Generic, TypeVar, cast

import psutil
import pytest

from pyscopg2.core.adapter import Adapter, ConnT, PoolT, ReturnsEarly
from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.testing.cluster import LocalCluster, Node

__all__ = ("AdapterContract", "Subject")

SOON = 5.0
"""Seconds within which what happens at once has happened, on however slow a machine."""

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


class AdapterContract(Generic[PoolT, ConnT]):
    """The contract; give it the fixture `subject`."""

    # The server

    @pytest.fixture(scope="class")
    @classmethod
    def contract_cluster(cls) -> Iterator[LocalCluster]:
        with LocalCluster(replicas=0) as cluster:
            cluster.psql(cluster.primary, TABLES)
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
            assert sqlstate in codes, caught.value
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

    @pytest.mark.parametrize("late", [False, True], ids=["waiting", "just answered"])
    def test_a_pool_whose_creation_is_cancelled_closes_its_sockets(
        self, bench: "Bench[PoolT, ConnT]", late: bool
    ) -> None:
        """Wherever it is cancelled, and without the garbage collector."""

        async def main() -> None:
            for turn in itertools.count():
                creation = asyncio.ensure_future(
                    _cancelled_at(bench.create(bench.target()), turn, late)
                )
                await bench.end(creation)
                if not creation.cancelled():
                    assert not creation.cancelling(), "a cancelled creation went on"
                    await bench.adapter.terminate_pool(creation.result())
                    await bench.sockets_close()
                    break
                # Its exception has a traceback, which may refer to sockets.
                del creation
                await bench.sockets_close()

        with _without_garbage_collector():
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

    @pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
    def test_a_pool_can_be_terminated_right_after_its_creation(
        self, bench: "Bench[PoolT, ConnT]", frozen: bool
    ) -> None:
        async def main() -> None:
            pool = await bench.create(bench.target(), **bench.subject.sizes(3, 5))
            if frozen:
                bench.cluster.freeze(bench.node)
            await asyncio.wait_for(bench.adapter.terminate_pool(pool), SOON)
            await bench.sockets_close()

        bench.run(main())

    @pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled first", "cancelled last"])
    def test_acquires_that_connect_to_a_frozen_server_end_with_their_pool(
        self, bench: "Bench[PoolT, ConnT]", cancelled: bool
    ) -> None:
        """They are cancelled, too: the core waits for them no longer when it ends a pool."""

        async def main() -> None:
            pool = await bench.create(bench.target(), **bench.subject.sizes(0, 3))
            connection = await bench.acquire(pool)
            bench.cluster.freeze(bench.node)
            acquiring = [asyncio.ensure_future(bench.acquire(pool)) for _ in range(3)]
            _, connecting = await asyncio.wait(acquiring, timeout=A_MOMENT)
            assert connecting, "a new connection to a frozen server"
            if cancelled:
                for task in connecting:
                    task.cancel()
            for taken in (connection, *(t.result() for t in acquiring if t not in connecting)):
                bench.adapter.terminate_connection(taken)
            await asyncio.wait_for(bench.adapter.terminate_pool(pool), SOON)
            if not cancelled:
                for task in connecting:
                    task.cancel()
            await bench.end(*connecting)
            assert all(t.cancelled() or t.exception() for t in connecting), "an acquire succeeded"
            await bench.release_quietly(connection, pool)
            bench.cluster.thaw(bench.node)

        bench.run(main())

    def test_a_pool_closes_when_all_its_connections_were_terminated(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            pool = await bench.create(bench.target())
            taken = [await bench.acquire(pool) for _ in range(3)]
            for connection in taken:
                bench.adapter.terminate_connection(connection)
                await bench.release_quietly(connection, pool)
            await asyncio.wait_for(bench.adapter.close_pool(pool), SOON)
            await bench.sockets_close()

        bench.run(main())

    def test_what_is_terminated_again_disturbs_nobody(self, bench: "Bench[PoolT, ConnT]") -> None:
        """Others may have its file descriptor by then, and its place in the pool."""

        async def main() -> None:
            old = await bench.create(bench.target())
            async with bench.pool(0, 3) as pool:
                ended = [(await bench.acquire(old), old), (await bench.acquire(pool), pool)]
                for connection, its_pool in ended:
                    bench.adapter.terminate_connection(connection)
                    await bench.release_quietly(connection, its_pool)
                await asyncio.wait_for(bench.adapter.terminate_pool(old), SOON)
                await bench.sockets_close(bench.adapter.get_pool_maxsize(pool))
                taken = [await bench.acquire(pool) for _ in range(4)]
                queries = [
                    asyncio.ensure_future(bench.fetch(connection, "SELECT pg_sleep(60)"))
                    for connection in taken
                ]
                await bench.until_running(len(queries))
                for connection, _ in ended:
                    bench.adapter.terminate_connection(connection)
                await asyncio.wait_for(bench.adapter.terminate_pool(old), SOON)
                bench.cancel_queries()
                await bench.end(*queries)
                for connection, query in zip(taken, queries, strict=True):
                    codes = {bench.adapter.sqlstate(link) for link in _chain(query.exception())}
                    assert "57014" in codes
                    await bench.release(connection, pool)
                await bench.all_places_are_free(pool)

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

    def test_connections_that_broke_while_idle_are_not_handed_out(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                await bench.all_places_are_free(pool)
                bench.end_backends()
                await bench.all_hang_up()
                await bench.all_places_are_free(pool)

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

    @pytest.mark.parametrize("late", [False, True], ids=["waiting", "just answered"])
    def test_a_cancelled_acquire_never_succeeds(
        self, bench: "Bench[PoolT, ConnT]", late: bool
    ) -> None:
        """Wherever it is cancelled, and at the very moment when what it waits for has come: a
        cancellation that is lost there is lost for the user's whole task."""

        async def main() -> None:
            async with bench.pool(0, 2) as pool:
                # The one that the pool was created with: from now on an acquire connects.
                connection = await bench.acquire(pool)
                turn = successes = 0
                while successes < 3:  # a pool may keep the two that cancelled acquires have opened
                    acquiring = asyncio.ensure_future(
                        _cancelled_at(bench.acquire(pool), turn, late)
                    )
                    await bench.end(acquiring)
                    if acquiring.cancelled():
                        turn, successes = turn + 1, 0
                        continue
                    assert not acquiring.cancelling(), "a cancelled acquire succeeded"
                    successes += 1
                    bench.adapter.terminate_connection(acquiring.result())
                    await bench.release_quietly(acquiring.result(), pool)
                await bench.release(connection, pool)
                await bench.all_places_are_free(pool)

        bench.run(main())

    @pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
    def test_a_cancelled_acquire_closes_its_socket_with_the_pool(
        self, bench: "Bench[PoolT, ConnT]", frozen: bool
    ) -> None:
        """Without the garbage collector."""

        async def main() -> None:
            for turn in range(1 if frozen else 8):
                pool = await bench.create(bench.target(), **bench.subject.sizes(0, 3))
                taken = [await bench.acquire(pool)]
                if frozen:
                    bench.cluster.freeze(bench.node)
                    acquiring = [asyncio.ensure_future(bench.acquire(pool)) for _ in range(3)]
                    _, connecting = await asyncio.wait(acquiring, timeout=A_MOMENT)
                    assert connecting, "a new connection to a frozen server"
                    while connecting:
                        connecting.pop().cancel()
                else:
                    cancelled = _cancelled_at(bench.acquire(pool), turn, False)
                    acquiring = [asyncio.ensure_future(cancelled)]
                    await bench.end(*acquiring)
                taken += [t.result() for t in acquiring if t.done() and not t.cancelled()]
                while taken:
                    bench.adapter.terminate_connection(taken[-1])
                    await bench.release_quietly(taken.pop(), pool)
                await asyncio.wait_for(bench.adapter.terminate_pool(pool), SOON)
                await bench.end(*acquiring)
                acquiring.clear()
                await bench.sockets_close()

        with _without_garbage_collector():
            bench.run(main())

    def test_a_burst_with_cancellations_leaves_all_places_free(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        dice = random.Random(20)

        async def use(pool: PoolT) -> None:
            for _ in range(6):
                acquiring = asyncio.ensure_future(bench.acquire(pool))
                if dice.random() < 0.5:
                    await asyncio.wait({acquiring}, timeout=dice.random() * 0.02)
                    acquiring.cancel()
                await bench.end(acquiring)
                if acquiring.cancelled():
                    continue
                connection = acquiring.result()
                query = asyncio.ensure_future(bench.fetch(connection, "SELECT pg_sleep(0.001)"))
                if dice.random() < 0.3:
                    await asyncio.wait({query}, timeout=dice.random() * 0.002)
                    # As the core does it, in this order.
                    bench.adapter.terminate_connection(connection)
                    query.cancel()
                await asyncio.gather(query, return_exceptions=True)
                await bench.release_quietly(connection, pool)

        async def main() -> None:
            async with bench.pool(2, 7) as pool:
                await asyncio.gather(*(use(pool) for _ in range(8)))
                await bench.all_places_are_free(pool)

        bench.run(main())

    def test_giving_back_does_not_wait_for_those_who_connect(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with bench.pool(0, 4) as pool:
                connection = await bench.acquire(pool)
                pid = await bench.fetch(connection, "SELECT pg_backend_pid()")
                bench.cluster.freeze(bench.node)
                bench.thaw_backend(int(str(pid)))
                acquiring = [asyncio.ensure_future(bench.acquire(pool)) for _ in range(4)]
                _, connecting = await asyncio.wait(acquiring, timeout=A_MOMENT)
                assert connecting, "a new connection to a frozen server"
                await asyncio.wait_for(bench.release(connection, pool), SOON)
                bench.cluster.thaw(bench.node)
                await bench.end(*acquiring)
                for task in acquiring:
                    await bench.release(task.result(), pool)
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
        unheard: list[str] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: unheard.append(str(context))
            )
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
        gc.collect()
        assert not unheard

    @pytest.mark.parametrize("broken", [False, True], ids=["healthy", "broken"])
    def test_what_is_said_to_be_back_can_be_taken_at_once(
        self, bench: "Bench[PoolT, ConnT]", broken: bool
    ) -> None:
        """By an adapter that says so: then the driver's acquire need not wait for it any more."""
        if not isinstance(bench.adapter, ReturnsEarly):
            pytest.skip("the adapter does not return early")
        early = cast("ReturnsEarly[PoolT, ConnT]", bench.adapter)

        async def main() -> None:
            async with bench.pool(1, 1) as pool:
                took: list[ConnT | None] = []
                over = True

                def take() -> None:
                    steps = bench.adapter.acquire_from_pool(pool).__await__()
                    try:
                        next(steps)
                    except StopIteration as stop:
                        took.append(stop.value)
                    else:
                        steps.close()
                        took.append(None)

                def returned() -> None:
                    nonlocal over
                    if not over:
                        over = True
                        asyncio.get_running_loop().call_soon(take)

                other = await bench.acquire(pool)
                for _ in range(3):
                    connection = await bench.acquire(pool)
                    if broken:
                        bench.adapter.terminate_connection(connection)
                    over = False
                    await asyncio.wait_for(early.return_to_pool(connection, pool, returned), SOON)
                    # By now it is free in any case; a broken one may have come back in silence.
                    over = True
                    if took or not broken:
                        (taken,) = took
                        assert taken is not None, "the driver did not have it yet"
                        await bench.release(taken, pool)
                        took.clear()
                await bench.release(other, pool)
                await bench.all_places_are_free(pool)

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

    @pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled first", "cancelled last"])
    def test_a_query_on_a_frozen_server_ends_when_it_is_cancelled_and_terminated(
        self, bench: "Bench[PoolT, ConnT]", cancelled: bool
    ) -> None:
        """A cancellation alone may take the driver long: it may want the server to agree."""

        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                connection = await bench.acquire(pool)
                bench.cluster.freeze(bench.node)
                query = asyncio.ensure_future(bench.fetch(connection, "SELECT 1"))
                await asyncio.wait({query}, timeout=A_MOMENT)
                if cancelled:
                    query.cancel()
                    await asyncio.wait({query}, timeout=A_MOMENT)
                bench.adapter.terminate_connection(connection)
                if not cancelled:
                    query.cancel()
                await bench.end(query)
                assert query.cancelled() or query.exception() is not None
                await bench.release_quietly(connection, pool)
                bench.cluster.thaw(bench.node)
                await bench.all_places_are_free(pool)

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

    def test_a_query_that_the_server_cancels_is_an_error_and_no_cancellation(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                connection = await bench.acquire(pool)
                query = asyncio.ensure_future(bench.fetch(connection, "SELECT pg_sleep(60)"))
                await bench.until_running()
                bench.cancel_queries()
                await bench.end(query)
                assert not query.cancelled(), "as if this task had been cancelled"
                codes = {bench.adapter.sqlstate(link) for link in _chain(query.exception())}
                assert "57014" in codes
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
                await bench.end_block(connection, None)
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
                await bench.end_block(connection, RuntimeError("the block's"))
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
                        await asyncio.wait_for(bench.end_block(connection, None), SOON)
                else:
                    await bench.end_block_quietly(connection)
                await bench.release_quietly(connection, pool)
                assert bench.is_there(item) is bench.subject.autocommit

        bench.run(main())

    def test_what_the_server_refuses_at_the_end_of_a_block_is_told(
        self, bench: "Bench[PoolT, ConnT]"
    ) -> None:
        """A deferred constraint is checked where the transaction commits."""

        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                connection = await bench.acquire(pool)
                failure: Exception | None = None
                try:
                    twice = "INSERT INTO deferring VALUES ('twice'), ('twice')"
                    await bench.subject.execute(connection, twice)
                except Exception as exc:
                    failure = exc
                assert (failure is not None) is bench.subject.autocommit
                try:
                    await asyncio.wait_for(bench.end_block(connection, failure), SOON)
                except Exception as exc:
                    assert bench.subject.commits, exc
                    failure = exc
                if bench.subject.commits or bench.subject.autocommit:
                    codes = {bench.adapter.sqlstate(link) for link in _chain(failure)}
                    assert "23505" in codes
                await bench.release(connection, pool)
                assert bench.open_transactions() == 0
                await bench.all_places_are_free(pool)
                assert bench.psql("SELECT count(*) FROM deferring") == "0"

        bench.run(main())

    @pytest.mark.parametrize("released", [False, True], ids=["terminated", "and released"])
    def test_a_users_own_commit_on_a_terminated_connection_raises(
        self, bench: "Bench[PoolT, ConnT]", released: bool
    ) -> None:
        if not bench.subject.transactions:
            pytest.skip("the subject has no transactions")

        async def main() -> None:
            async with bench.pool(0, 1) as pool:
                for name, transaction in bench.subject.transactions.items():
                    connection = await bench.acquire(pool)
                    async with transaction(connection):
                        item = await bench.insert(connection)
                    await bench.release(connection, pool)
                    assert bench.is_there(item), f"{name} does not commit"

                    connection = await bench.acquire(pool)
                    committed = False
                    try:
                        async with transaction(connection):
                            item = await bench.insert(connection)
                            bench.adapter.terminate_connection(connection)
                            if released:
                                await bench.release_quietly(connection, pool)
                        committed = True
                    except Exception as exc:
                        assert not isinstance(exc, AttributeError), exc
                    assert not committed, f"{name} ended as if it had committed"
                    assert not bench.is_there(item)
                    if not released:
                        await bench.release_quietly(connection, pool)
                await bench.all_places_are_free(pool)

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
        """Run a test in a loop of its own, and see that no task is left in it."""

        async def check() -> None:
            before = asyncio.all_tasks()
            await main
            until = time.monotonic() + SOON
            while left := asyncio.all_tasks() - before:
                assert time.monotonic() < until, f"tasks left: {left}"
                await asyncio.sleep(0.01)

        asyncio.run(check())

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

    async def end(self, *tasks: asyncio.Task[Any]) -> None:
        """Wait until they have ended, however they do."""
        _, left = await asyncio.wait(tasks, timeout=SOON)
        assert not left, "it did not end within a generous time"

    async def release_quietly(self, connection: ConnT, pool: PoolT) -> None:
        """A release that may raise, as that of a broken connection may, but must not hang."""
        await self._quietly(self.adapter.release_to_pool(connection, pool))

    async def end_block(self, connection: ConnT, exc: BaseException | None) -> None:
        ending = self.adapter.end_block(connection, exc)
        if ending is not None:
            await ending

    async def end_block_quietly(self, connection: ConnT) -> None:
        await self._quietly(self.end_block(connection, None))

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

    # Asked of the system, beside the driver

    def sockets(self) -> int:
        """How many connections to the server this process has."""
        return len(self._connections())

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
        while any(each.status == psutil.CONN_ESTABLISHED for each in self._connections()):
            assert time.monotonic() < until, "the server keeps its connections"
            await asyncio.sleep(0.001)
        for _ in range(5):
            await asyncio.sleep(0)

    async def sockets_close(self, rest: int | None = 0) -> None:
        """Until no more than ``rest`` sockets are open."""
        until = time.monotonic() + SOON
        while self.sockets() > (rest or 0):
            assert time.monotonic() < until, "sockets are left open"
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

    def wait_for_no_backends(self) -> None:
        asyncio.run(self.no_backends())


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


@contextmanager
def _without_garbage_collector() -> Generator[None]:
    """What has to be closed is closed by whoever opened it, now, and not by chance."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@types.coroutine
def _cancelled_at(awaitable: Awaitable[T], turn: int, late: bool) -> Generator[Any, Any, T]:
    """Go through ``awaitable``, and cancel the current task the ``turn``-th time it suspends.

    While it waits; or late: when what it waits for has come, and it has yet to hear of it.
    """
    task = cast("asyncio.Task[T]", asyncio.current_task())
    steps = awaitable.__await__()
    try:
        pending = next(steps)
        for suspended in itertools.count():
            if suspended == turn and not late:
                task.cancel()
            try:
                value = yield pending
                if suspended == turn and late:
                    task.cancel()
                    yield
            except BaseException as exc:
                pending = steps.throw(exc)
            else:
                pending = steps.send(value)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise AssertionError("unreachable")
