"""The part of `pyscopg2.testing.contract` on the connection that a host's monitor keeps, where the
adapter makes it (`Reserves`), and on what servers report of their recovery (`TellsRecovery`)."""

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any, Generic, cast
from urllib.parse import quote

import pytest

from pyscopg2.core.adapter import ConnT, PoolT, Reserves, TellsRecovery
from pyscopg2.core.dsn import parse_dsn
from pyscopg2.testing.bench import A_MOMENT, Bench, Subject, chain, without_garbage_collector
from pyscopg2.testing.cluster import LocalCluster
from pyscopg2.testing.contracts.adapter.booth import Booth
from pyscopg2.testing.contracts.adapter.pair import LOGIN, ROLES, SETTINGS, Pair
from pyscopg2.testing.contracts.interrupted import ENOUGH, Interrupted, each_moment, each_way
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("ReservedContract",)


QUESTION = """
    SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_is_in_recovery(), 'answered')
    FROM pg_catalog.pg_sleep(0.2)
"""
"""In the form of the role query: it is for the core to name things so that no ``search_path`` leads
elsewhere."""


class ReservedContract(Generic[PoolT, ConnT]):
    """A part of `AdapterContract`."""

    @pytest.fixture(scope="class")
    @classmethod
    def standby_cluster(cls) -> Iterator[LocalCluster]:
        with LocalCluster(replicas=1) as cluster:
            cluster.psql(cluster.primary, ROLES)
            cluster.wait_streaming()
            yield cluster

    @pytest.fixture
    def booth(self, bench: Bench[PoolT, ConnT]) -> Booth[PoolT, ConnT]:
        if not isinstance(bench.adapter, Reserves):
            pytest.skip("the monitor takes its connection from the adapter's pool")
        return Booth(bench, bench.adapter)

    @pytest.fixture
    def pair(
        self, subject: Subject[PoolT, ConnT], request: pytest.FixtureRequest
    ) -> Iterator[Pair[PoolT, ConnT]]:
        if not isinstance(subject.adapter, Reserves | TellsRecovery):
            pytest.skip("the adapter neither reserves nor tells of recovery")
        pair = Pair(subject, request.getfixturevalue("standby_cluster"))
        yield pair
        pair.tune(None)

    # The connection

    @in_own_loop
    async def test_a_reserved_connection_is_apart_from_the_pool(
        self, booth: Booth[PoolT, ConnT]
    ) -> None:
        bench = booth.bench
        async with booth.reserved() as reserved:
            pool = await bench.create(bench.target(), **bench.subject.sizes(1, 2))
            size = bench.size_of(pool)
            assert size == 2, f"get_pool_maxsize() is {size} of a pool for 2, beside the monitor's"
            taken = [await bench.acquire(pool) for _ in range(2)]
            pids = {await bench.pid_of(connection) for connection in taken}
            pids.add(await booth.pid_of(reserved))
            assert len(pids) == 3, "the reserved connection is one of the pool's"
            for connection in taken:
                bench.adapter.terminate_connection(connection)
                await bench.release_quietly(connection, pool)
            await bench.adapter.terminate_pool(pool)
            told = "the reserved connection has ended with the pool"
            assert not reserved.is_closed(), told
            assert await booth.pid_of(reserved) in pids, told
        async with bench.pool_of_size(1, 2) as pool:
            connection = await bench.acquire(pool)
            async with booth.reserved():
                pass
            answer = await bench.fetch(connection, "SELECT 1")
            assert str(answer) == "1", "a pool's connection after the end of the reserved one"
            await bench.release(connection, pool)
            await bench.all_slots_are_free(pool)

    @in_own_loop
    async def test_a_refused_reservation_is_the_drivers_error(
        self, booth: Booth[PoolT, ConnT]
    ) -> None:
        bench = booth.bench
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            (target,) = parse_dsn(f"postgresql://u:p@127.0.0.1:{unused.getsockname()[1]}/d")
            error = await bench.fails(
                booth.reserve(target), "nobody listens there, and reserve() is to say so"
            )
        is_drivers = not isinstance(error, TimeoutError | TypeError | ValueError)
        assert is_drivers, f"reserve() hides the driver's own error: {error!r}"
        told = bench.adapter.sqlstate(error)
        assert told is None, f"sqlstate() tells {told}, where no server has said anything"

    @pytest.mark.parametrize(
        ("change", "sqlstate"),
        [({"password": "wrong-s3cret"}, "28P01"), ({"dbname": "nowhere"}, "3D000")],
        ids=["wrong password", "unknown database"],
    )
    @in_own_loop
    async def test_a_server_that_refuses_a_reservation_says_why(
        self, booth: Booth[PoolT, ConnT], change: dict[str, str], sqlstate: str
    ) -> None:
        bench = booth.bench
        reserving = booth.reserve(bench.target(**change))
        error = await bench.fails(reserving, "the server refused, and reserve() is to say so")
        bench.tells(error, sqlstate)
        told = [str(link) for link in chain(error)]
        assert all("wrong-s3cret" not in each for each in told), "the error shows the password"
        del error, reserving
        await bench.sockets_close()

    @in_own_loop
    async def test_a_reservation_does_what_its_dsn_says(self, booth: Booth[PoolT, ConnT]) -> None:
        """The server has no TLS. `ValueError` is an answer, too: what a driver can't do."""
        bench = booth.bench
        demanding = booth.reserve(bench.target(params="&sslmode=verify-full"))
        await bench.fails(
            demanding,
            "sslmode=verify-full, and the server has no TLS: this DSN's parameters are dropped",
        )
        target = bench.target(params=f"&options={quote('-c geqo=off')}")
        async with booth.reserved(target) as reserved:
            for name, value in (("application_name", bench.name), ("geqo", "off")):
                told = await reserved.fetch_scalar(f"SHOW {name}")
                assert told == value, f"{name} of the DSN (options, application_name): dropped"

    @each_moment
    @each_way
    @in_own_loop
    async def test_a_reservation_that_is_cancelled_closes_its_socket(
        self, booth: Booth[PoolT, ConnT], again: bool, late: bool
    ) -> None:
        """Wherever it is cancelled, and without the garbage collector."""
        booth.bench.needs("cancels_connects")
        bench = booth.bench
        with without_garbage_collector():
            for turn in itertools.count():
                assert turn < ENOUGH, "reserve() suspends for ever"
                reserving = Interrupted(booth.reserve(bench.target()), turn, again, late)
                await bench.end(reserving.task)
                if not reserving.happened:
                    reserving.task.result().terminate()
                    await bench.sockets_close()
                    break
                if reserving.came_too_late:
                    reserving.task.result().terminate()
                else:
                    assert reserving.task.cancelled(), "a cancelled reserve() went on"
                assert not reserving.escaped, "reserve() raised another CancelledError than came"
                # Its exception has a traceback, which may refer to sockets.
                del reserving
                await bench.sockets_close()

    @in_own_loop
    async def test_a_reservation_on_a_frozen_server_ends_when_it_is_cancelled(
        self, booth: Booth[PoolT, ConnT]
    ) -> None:
        booth.bench.needs("cancels_connects")
        bench = booth.bench
        with without_garbage_collector():
            bench.cluster.freeze(bench.node)
            reserving = asyncio.ensure_future(booth.reserve(bench.target()))
            await asyncio.wait({reserving}, timeout=A_MOMENT)
            reserving.cancel()
            await bench.end(reserving)
            assert reserving.cancelled(), "a cancelled reserve() went on"
            del reserving
            await bench.sockets_close()
            bench.cluster.thaw(bench.node)

    @pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
    @in_own_loop
    async def test_terminating_a_reserved_connection_ends_its_pending_query_at_once(
        self, booth: Booth[PoolT, ConnT], frozen: bool
    ) -> None:
        booth.bench.needs("terminates_queries")
        bench = booth.bench
        async with booth.reserved() as reserved:
            query = asyncio.ensure_future(reserved.fetch_scalar("SELECT pg_sleep(60)"))
            await bench.until_running()
            if frozen:
                bench.cluster.freeze(bench.node)
            for _ in range(2):
                reserved.terminate()
            await bench.fails(query, "terminate() has cut off its connection")
            assert reserved.is_closed(), "is_closed() after terminate()"
            reserved.terminate()
            await bench.sockets_close()
            bench.cluster.thaw(bench.node)
            bench.end_sleepers()

    @pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled first", "cancelled last"])
    @in_own_loop
    async def test_a_check_of_a_frozen_server_ends_when_it_is_cancelled_and_terminated(
        self, booth: Booth[PoolT, ConnT], cancelled: bool
    ) -> None:
        booth.bench.needs("terminates_queries")
        bench = booth.bench
        async with booth.reserved() as reserved:
            bench.cluster.freeze(bench.node)
            query = asyncio.ensure_future(reserved.fetch_scalar("SELECT 1"))
            await asyncio.wait({query}, timeout=A_MOMENT)
            if cancelled:
                query.cancel()
                await asyncio.wait({query}, timeout=A_MOMENT)
            reserved.terminate()
            if not cancelled:
                query.cancel()
            await bench.end(query)
            failed = query.cancelled() or query.exception() is not None
            assert failed, "a check succeeded on a connection that was terminated"
            await bench.sockets_close()
            bench.cluster.thaw(bench.node)

    @each_moment
    @each_way
    @in_own_loop
    async def test_a_check_that_is_cancelled_is_over(
        self, booth: Booth[PoolT, ConnT], again: bool, late: bool
    ) -> None:
        """It may have cost the connection; if not, that answers the next one."""
        bench = booth.bench
        for turn in itertools.count():
            assert turn < ENOUGH, "fetch_scalar() suspends for ever"
            async with booth.reserved() as reserved:
                asking = reserved.fetch_scalar("SELECT 'first'")
                check = Interrupted(asking, turn, again, late)
                await bench.end(check.task)
                if not check.happened:
                    assert check.task.result() == "first", "fetch_scalar()"
                    break
                over = check.task.cancelled() or check.came_too_late
                assert over, "a cancelled fetch_scalar() of the reserved connection went on"
                told = "fetch_scalar() raised another CancelledError than came"
                assert not check.escaped, told
                if not reserved.is_closed():
                    answer = await reserved.fetch_scalar("SELECT 'second'")
                    assert answer == "second", "the answer to a check that was cancelled"

    @in_own_loop
    async def test_a_reserved_connection_that_the_server_has_ended_is_known_to_be_closed(
        self, booth: Booth[PoolT, ConnT]
    ) -> None:
        bench = booth.bench
        async with booth.reserved() as reserved:
            assert not reserved.is_closed(), "is_closed() of a new one"
            bench.end_backends()
            await bench.all_hang_up()
            told = "is_closed() does not look at the socket, whose other end has hung up"
            assert reserved.is_closed(), told
            await bench.fails(reserved.fetch_scalar("SELECT 1"), "the server has ended it")
            reserved.terminate()
            await bench.sockets_close()

    # What it says

    @in_own_loop
    async def test_a_check_gives_what_the_server_wrote(self, booth: Booth[PoolT, ConnT]) -> None:
        async with booth.reserved() as reserved:
            for query, answer in (
                ("SELECT 'a b', 2", "a b"),
                ("SHOW transaction_read_only", "off"),
                ("SELECT concat_ws('%', 1, 2)", "1%2"),
                ("SELECT 42", "42"),
                ("SELECT NULL", None),
            ):
                told = await reserved.fetch_scalar(query)
                assert told == answer, f"fetch_scalar() gives what the server wrote: {query}"

    @in_own_loop
    async def test_no_codec_of_users_changes_what_a_check_says(
        self, booth: Booth[PoolT, ConnT]
    ) -> None:
        codecs = booth.bench.subject.codecs
        if codecs is None:
            pytest.skip("the subject has no codecs")
        async with booth.reserved(**codecs) as reserved:
            for query, answer in (("SELECT 'a b'", "a b"), ("SELECT 42", "42")):
                told = await reserved.fetch_scalar(query)
                assert told == answer, "users' codecs change what the server wrote to the monitor"

    @in_own_loop
    async def test_a_check_leaves_no_transaction_open(self, booth: Booth[PoolT, ConnT]) -> None:
        bench = booth.bench
        async with booth.reserved() as reserved:
            left_open = "fetch_scalar() leaves a transaction open"
            await reserved.fetch_scalar("SELECT 1")
            assert bench.open_transactions() == 0, left_open
            failing = reserved.fetch_scalar("SELECT no_such_function()")
            bench.tells(await bench.fails(failing, "there is no such function"), "42883")
            assert bench.open_transactions() == 0, f"{left_open} where the query failed"
            answer = await reserved.fetch_scalar("SELECT 'well'")
            assert answer == "well", "fetch_scalar() after a query that failed"
            assert not reserved.is_closed(), "is_closed() after a query that failed"

    @in_own_loop
    async def test_a_check_that_the_server_cancels_is_an_error_and_no_cancellation(
        self, booth: Booth[PoolT, ConnT]
    ) -> None:
        bench = booth.bench
        async with booth.reserved() as reserved:
            query = asyncio.ensure_future(reserved.fetch_scalar("SELECT pg_sleep(60)"))
            await bench.until_running()
            bench.cancel_queries()
            bench.tells(await bench.fails(query, "the server has cancelled it"), "57014")
            answer = await reserved.fetch_scalar("SELECT 'well'")
            assert answer == "well", "fetch_scalar() after a query that the server cancelled"
            assert bench.open_transactions() == 0, "fetch_scalar() leaves a transaction open"

    @pytest.mark.parametrize("by", ["role", "options"])
    @pytest.mark.parametrize("setting", SETTINGS)
    @in_own_loop
    async def test_no_default_of_the_sessions_changes_what_a_check_says(
        self, pair: Pair[PoolT, ConnT], setting: str, by: str
    ) -> None:
        """Neither on a primary nor on a standby: one in which transactions are serializable by
        default refuses all that begin so."""
        params = ""
        if by == "role":
            pair.tune(setting)
        else:
            value = SETTINGS[setting].replace(" ", r"\ ")
            params = f"&options={quote(f'-c {setting}={value}')}"
        for bench, recovering in ((pair.primary, "f"), (pair.standby, "t")):
            booth = pair.booth(bench)
            target = bench.target(user=LOGIN, password=LOGIN, params=params)
            async with booth.reserved(target) as reserved:
                # What is found out by the first may change how the second is asked.
                for _ in range(2):
                    told = await reserved.fetch_scalar(QUESTION)
                    why = f"{setting} = {SETTINGS[setting]} of the session changes what it says"
                    assert told == f"{recovering} answered", why
                assert bench.open_transactions() == 0, "fetch_scalar() leaves a transaction open"

    @in_own_loop
    async def test_what_is_told_of_recovery_is_true(self, pair: Pair[PoolT, ConnT]) -> None:
        """None where the server does not report it, or before it answered anything."""
        adapter = pair.primary.adapter
        for bench, recovering in ((pair.primary, False), (pair.standby, True)):
            if isinstance(adapter, Reserves):
                booth = pair.booth(bench)
                async with booth.reserved() as reserved:
                    assert reserved.in_recovery() in (None, recovering), "in_recovery()"
                    for _ in range(2):
                        await reserved.fetch_scalar("SELECT 1")
                        assert reserved.in_recovery() in pair.told(recovering), "in_recovery()"
                    reserved.terminate()
                    assert reserved.in_recovery() in (None, recovering), "in_recovery()"
            if isinstance(adapter, TellsRecovery):
                teller = cast("TellsRecovery[ConnT]", adapter)
                async with bench.pool_of_size(0, 1) as pool:
                    connection = await bench.acquire(pool)
                    assert teller.in_recovery(connection) in (None, recovering), "in_recovery()"
                    await bench.fetch(connection, "SELECT 1")
                    assert teller.in_recovery(connection) in pair.told(recovering), "in_recovery()"
                    bench.adapter.terminate_connection(connection)
                    assert teller.in_recovery(connection) in (None, recovering), "in_recovery()"
                    await bench.release_quietly(connection, pool)

    @in_own_loop
    async def test_what_is_told_of_recovery_is_true_after_a_promotion(
        self, pair: Pair[PoolT, ConnT]
    ) -> None:
        bench = pair.standby

        async def ask(query: Callable[[], Any], tell: Callable[[], bool | None]) -> None:
            await query()
            assert tell() in pair.told(True), "in_recovery() on a standby"
            await asyncio.to_thread(bench.cluster.promote, bench.node)
            await query()
            assert tell() in pair.told(False), "in_recovery() after a promotion"

        try:
            if isinstance(bench.adapter, Reserves):
                async with pair.booth(bench).reserved() as reserved:
                    await ask(lambda: reserved.fetch_scalar("SELECT 1"), reserved.in_recovery)
            else:
                teller = cast("TellsRecovery[ConnT]", bench.adapter)
                async with bench.pool_of_size(0, 1) as pool:
                    connection = await bench.acquire(pool)
                    await ask(
                        lambda: bench.fetch(connection, "SELECT 1"),
                        lambda: teller.in_recovery(connection),
                    )
                    await bench.release(connection, pool)
        finally:
            await asyncio.to_thread(pair.repair)
