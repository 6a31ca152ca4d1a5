import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Self, TypeVar

import pytest

from pyscopg2.core.adapter import ChecksOptions
from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.testing.fake import (
    FakeAdapter,
    FakeConnection,
    FakeNetwork,
    FakePool,
    FakeQuirks,
)
from pyscopg2.testing.fake_server import (
    FULL,
    STARTING,
    UNKNOWN_DATABASE,
    WRONG_PASSWORD,
    FakeError,
    FakeServer,
)
from pyscopg2.testing.virtual_time import run, settle

T = TypeVar("T")

RICH = "select concat_ws(' ', pg_is_in_recovery(), …)"
PLAIN = "SHOW transaction_read_only"


class Bench:
    """One network, one adapter, and shortcuts; leaving it asserts that nothing is left."""

    def __init__(self, replicas: int = 1, **quirks: Any) -> None:
        self.network = FakeNetwork.cluster(replicas)
        self.adapter = FakeAdapter(self.network, FakeQuirks(**quirks))
        self.server = self.network.master
        self.targets: dict[str, Target] = {
            target.address: target for target in parse_dsn(self.network.dsn)
        }

    async def pool(self, address: str = "db1:5432", **options: Any) -> FakePool:
        return await self.adapter.create_pool(self.targets[address], **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: object, *_: object) -> None:
        for pool in self.network.pools:
            await self.adapter.terminate_pool(pool)
        if exc_type is None:
            self.network.assert_nothing_left()


def now() -> float:
    return asyncio.get_running_loop().time()


def start(coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    return asyncio.create_task(coroutine)


def first_step(awaitable: Generator[Any, Any, T]) -> T:
    """The result of something that must not suspend."""
    with pytest.raises(StopIteration) as stop:
        next(awaitable)
    result: T = stop.value.value
    return result


# What a host answers


def test_the_role_query() -> None:
    server = FakeServer()
    assert server.answer(RICH) == "f off 0/3000148 1 7412345678901234567"
    assert server.answer(f"  {PLAIN.lower()}  ") == "off"
    assert server.answer("select 1") == 1

    server.read_only = True
    assert server.answer(RICH) == "f on 0/3000148 1 7412345678901234567"
    assert server.answer(PLAIN) == "on"

    replica = FakeServer(in_recovery=True, lsn=None, timeline=7, system_identifier=42)
    assert replica.answer(RICH) == "t on - - 42"
    assert replica.answer(PLAIN) == "on"


@pytest.mark.parametrize("sqlstate", ["42501", "42883", "0A000"])
def test_a_refused_rich_probe_leaves_the_plain_one(sqlstate: str) -> None:
    server = FakeServer(refuse_rich_probe=sqlstate)
    with pytest.raises(FakeError) as refused:
        server.answer(RICH)
    assert refused.value.sqlstate == sqlstate
    assert server.answer(PLAIN) == "off"


def test_scripted_answers() -> None:
    server = FakeServer(answers={"select name": "Ada", "select bad": FakeError("no", "42703")})
    assert server.answer("select name") == "Ada"
    with pytest.raises(FakeError, match="no"):
        server.answer("select bad")


def test_promotion_raises_the_timeline_and_keeps_connections() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool("db2:5432")
            connection = await pool.acquire()
            bench.network["db2:5432"].promote()
            assert await connection.fetch_scalar(RICH) == "f off 0/3000148 2 7412345678901234567"
            with pytest.raises(ValueError, match="not in recovery"):
                bench.network["db2:5432"].promote()

    run(main())


def test_demotion_breaks_connections() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool()
            connection = await pool.acquire()
            new = bench.network.failover(old_stays=True)
            bench.server.demote(follows=new)
            assert connection.is_closed
            connection = await pool.acquire()
            assert await connection.fetch_scalar(PLAIN) == "on"
            assert bench.server.timeline == 2

    run(main())


def test_failover() -> None:
    network = FakeNetwork.cluster(replicas=3)
    old, second, third, fourth = network.servers.values()
    second.down()
    assert network.failover() is third
    assert network.masters == [old, third]
    assert network.master is third
    assert (old.is_up, old.timeline) == (False, 1)
    assert (third.timeline, fourth.timeline) == (2, 2)
    old.demote(follows=third)
    old.up()
    assert network.failover(to=old) is old
    assert old.timeline == 3
    second.demote()
    third.demote()
    fourth.down()
    with pytest.raises(LookupError):
        network.failover()


def test_a_split_brain() -> None:
    network = FakeNetwork.cluster(replicas=1)
    new = network.failover(old_stays=True)
    assert [server.is_up for server in network.masters] == [True, True]
    assert network.master is new
    assert network.replicas == []


def test_a_network_without_a_master_says_so() -> None:
    with pytest.raises(LookupError, match="no host is a master"):
        _ = FakeNetwork({"a:1": FakeServer(in_recovery=True)}).master


# Connecting


def test_connects_and_queries_take_the_latency() -> None:
    async def main() -> None:
        async with Bench() as bench:
            bench.server.latency = 0.25
            pool = await bench.pool(min_size=0)
            assert now() == 0.25
            connection = await pool.acquire()
            await connection.fetch_scalar("select 1")
            assert now() == 0.5
            assert (bench.server.connects, bench.server.queries, bench.server.backends) == (1, 1, 1)
            assert bench.server.log == [(0, "connect"), (0.25, "select 1")]

    run(main())


@pytest.mark.parametrize("sqlstate", [FULL, STARTING, WRONG_PASSWORD, UNKNOWN_DATABASE])
def test_refused_connects(sqlstate: str) -> None:
    async def main() -> None:
        async with Bench() as bench:
            bench.server.refuse_connects = sqlstate
            with pytest.raises(FakeError) as refused:
                await bench.pool()
            assert bench.adapter.sqlstate(refused.value) == sqlstate
            bench.network.assert_nothing_left()

    run(main())


def test_a_host_that_is_down_refuses() -> None:
    async def main() -> None:
        async with Bench() as bench:
            bench.server.down()
            with pytest.raises(ConnectionRefusedError) as refused:
                await bench.pool()
            assert bench.adapter.sqlstate(refused.value) is None
            assert bench.server.connects == 1
            bench.server.up()
            await bench.pool()

    run(main())


def test_an_unknown_address_and_one_that_moves() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool(min_size=0)
            old = await pool.acquire()
            bench.network.servers["db1:5432"] = bench.network["db2:5432"]
            new = await pool.acquire()
            assert (old.server.name, new.server.name) == ("db1", "db2")
            await old.execute("insert")
            assert len(bench.network.leftovers) == 3
            del bench.network.servers["db1:5432"]
            with pytest.raises(OSError, match="not known"):
                await pool.acquire()

    run(main())


def test_a_pool_that_cannot_be_filled_leaves_nothing() -> None:
    async def main() -> None:
        async with Bench() as bench:
            creating = start(bench.pool(min_size=4))
            await asyncio.sleep(bench.server.latency * 2.5)
            assert bench.server.backends == 2
            bench.server.refuse_connects = FULL
            with pytest.raises(FakeError):
                await creating
            bench.network.assert_nothing_left()

            bench.server.refuse_connects = None
            bench.server.freeze()
            creating = start(bench.pool())
            await settle()
            creating.cancel()
            await settle()
            assert creating.cancelled()
            bench.network.assert_nothing_left()

    run(main())


# Frozen, cut, broken


def test_a_frozen_host_answers_after_the_thaw_and_as_it_is_then() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool(min_size=0)
            connection = await pool.acquire()
            bench.server.freeze()
            query, connect = start(connection.fetch_scalar(PLAIN)), start(pool.acquire())
            await asyncio.sleep(100)
            assert not query.done()
            assert not connect.done()
            assert not connection.is_closed
            bench.server.read_only = True
            bench.server.thaw()
            assert await query == "on"
            await connect

    run(main())


def test_a_freeze_catches_answers_on_their_way() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool()
            connection = await pool.acquire()
            bench.server.latency = 1
            query = start(connection.fetch_scalar("select 1"))
            await asyncio.sleep(0.5)
            bench.server.freeze()
            await asyncio.sleep(10)
            assert not query.done()
            bench.server.thaw()
            began = now()
            assert await query == 1
            assert now() == began + 1

    run(main())


def test_a_thaw_revives_no_host_that_is_down() -> None:
    server = FakeServer()
    server.down()
    server.thaw()
    assert not server.is_up


@pytest.mark.parametrize("silence", ["freeze", "cut_flows"])
def test_a_terminated_connection_fails_at_once_and_for_good(silence: str) -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool()
            connection = await pool.acquire()
            getattr(bench.server, silence)()
            query = start(connection.fetch_scalar("select 1"))
            await asyncio.sleep(10)
            bench.adapter.terminate_connection(connection)
            bench.adapter.terminate_connection(connection)
            assert connection.is_closed
            with pytest.raises(FakeError) as failed:
                await query
            assert failed.value.sqlstate == "08003"
            assert now() == pytest.approx(10, abs=0.1)
            bench.server.thaw()
            for operation in (connection.fetch_scalar("select 1"), connection.execute("insert")):
                with pytest.raises(FakeError):
                    await operation
            await pool.release(connection)
            assert bench.server.writes == []
            assert pool.free_size == pool.max_size

    run(main())


def test_an_answer_that_came_with_the_termination_is_no_success() -> None:
    async def main() -> None:
        async with Bench() as bench:
            connection = await (await bench.pool()).acquire()
            query = start(connection.execute("insert"))
            await settle()
            asyncio.get_running_loop().call_later(bench.server.latency, connection.terminate)
            with pytest.raises(FakeError):
                await query
            assert bench.server.writes == []

    run(main())


def test_cut_flows_stay_dead_while_new_ones_work() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool(min_size=0)
            dead = await pool.acquire()
            bench.server.cut_flows()
            query = start(dead.fetch_scalar("select 1"))
            assert await (await pool.acquire()).fetch_scalar("select 1") == 1
            bench.server.down()
            bench.server.up()
            await asyncio.sleep(1000)
            assert not query.done()
            assert not dead.is_closed
            query.cancel()
            await settle()
            assert query.cancelled()

    run(main())


def test_silent_to_connects_until_it_is_up() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool(min_size=0)
            connection = await pool.acquire()
            bench.server.silent_to_connects = True
            connecting = start(pool.acquire())
            assert await connection.fetch_scalar("select 1") == 1
            await asyncio.sleep(1000)
            assert not connecting.done()
            bench.server.up()
            assert await (await connecting).fetch_scalar("select 1") == 1

    run(main())


@pytest.mark.parametrize("notices", [True, False])
def test_broken_connections(notices: bool) -> None:
    async def main() -> None:
        async with Bench(notices_breaks=notices) as bench:
            pool = await bench.pool()
            busy, quiet = await pool.acquire(), await pool.acquire()
            query = start(busy.fetch_scalar("select 1"))
            await settle()
            bench.server.break_connections()
            with pytest.raises(ConnectionResetError):
                await query
            assert busy.is_closed
            assert quiet.is_closed is notices
            with pytest.raises(ConnectionResetError):
                await quiet.fetch_scalar("select 1")
            with pytest.raises(FakeError, match="closed"):
                await quiet.fetch_scalar("select 1")
            assert quiet.is_closed
            assert bench.server.backends == 0
            await pool.release(busy)
            await pool.release(quiet)
            assert pool.idle == []

    run(main())


def test_an_orderly_restart_tells_its_clients() -> None:
    async def main() -> None:
        async with Bench() as bench:
            connection = await (await bench.pool()).acquire()
            bench.server.restart()
            with pytest.raises(FakeError) as failed:
                await connection.fetch_scalar("select 1")
            assert failed.value.sqlstate == "57P01"
            assert bench.server.is_up

    run(main())


def test_one_operation_at_a_time() -> None:
    async def main() -> None:
        async with Bench() as bench:
            connection = await (await bench.pool()).acquire()
            query = start(connection.fetch_scalar("select 1"))
            await settle()
            with pytest.raises(FakeError, match="another operation"):
                await connection.fetch_scalar("select 2")
            assert await query == 1

    run(main())


# Cancelling


def test_a_cancelled_query_ends_at_once_and_spares_the_connection() -> None:
    async def main() -> None:
        async with Bench(cancel_delay=11) as bench:
            connection = await (await bench.pool()).acquire()
            began = now()
            query = start(connection.fetch_scalar("select 1"))
            await settle()
            query.cancel()
            await settle()
            assert query.cancelled()
            assert now() == began
            assert await connection.fetch_scalar("select 1") == 1

    run(main())


def test_a_slow_cancellation() -> None:
    async def main() -> None:
        async with Bench(cancel_delay=11) as bench:
            pool = await bench.pool(min_size=0)
            connection = await pool.acquire()
            bench.server.freeze()
            began = now()
            tasks = [start(connection.fetch_scalar("select 1")), start(pool.acquire())]
            await settle()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert now() == began + 11
            assert all(task.cancelled() for task in tasks)
            assert pool.free_size == pool.max_size - 1

    run(main())


@pytest.mark.parametrize("end", ["terminate", "thaw", "down"])
def test_what_ends_a_slow_cancellation_earlier(end: str) -> None:
    async def main() -> None:
        async with Bench(cancel_delay=11) as bench:
            connection = await (await bench.pool()).acquire()
            bench.server.freeze()
            query = start(connection.fetch_scalar("select 1"))
            await settle()
            query.cancel()
            await asyncio.sleep(1)
            assert not query.done()
            getattr(connection if end == "terminate" else bench.server, end)()
            await asyncio.sleep(bench.server.latency)
            await settle()
            assert query.cancelled()

    run(main())


@pytest.mark.parametrize("turns", range(6))
def test_a_cancelled_acquire_leaves_nothing(turns: int) -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool(min_size=0, max_size=1)
            held = await pool.acquire()
            bench.server.latency = 0
            acquire = start(pool.acquire())
            for _ in range(turns):
                await asyncio.sleep(0)
            acquire.cancel()
            await settle()
            if acquire.cancelled():
                assert pool.free_size == 1
                assert bench.server.backends == 1
            else:
                await pool.release(acquire.result())
            await pool.release(held)
            assert pool.free_size == 2
            await pool.close()
            bench.network.assert_nothing_left()

    run(main())


# The pool


def test_a_pool_has_room_for_one_more() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool(min_size=2, max_size=3)
            assert len(pool.idle) == 3
            assert bench.adapter.get_pool_maxsize(pool) == 4
            assert bench.adapter.get_pool_freesize(pool) == 4
            await pool.acquire()
            assert bench.adapter.get_pool_freesize(pool) == 3

    run(main())


def test_idle_connections_are_given_last_in_first_out_without_suspending() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool()
            first = await pool.acquire()
            second = await pool.acquire()
            await pool.release(first)
            await pool.release(second)
            acquire = bench.adapter.acquire_from_pool(pool, timeout=1)
            assert first_step(acquire.__await__()) is second
            assert await pool.acquire() is first

    run(main())


def test_who_finds_the_pool_full_waits_in_line() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool(max_size=1)
            held = [await pool.acquire(), await pool.acquire()]
            began = now()
            with pytest.raises(TimeoutError):
                await pool.acquire(timeout=2)
            assert now() == began + 2
            waiting = [start(pool.acquire()) for _ in range(3)]
            await settle()
            waiting[0].cancel()
            for connection in held:
                await pool.release(connection)
            assert await asyncio.gather(*waiting[1:]) == held

    run(main())


def test_a_release_resets_and_hangs_on_a_frozen_host() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool()
            connection = await pool.acquire()
            free = pool.free_size
            bench.server.freeze()
            release = start(pool.release(connection))
            await asyncio.sleep(60)
            assert not release.done()
            assert pool.free_size == free
            with pytest.raises(FakeError, match="not out"):
                await pool.release(connection)
            connection.terminate()
            with pytest.raises(FakeError):
                await release
            assert pool.free_size == free + 1
            assert bench.server.log[-1].text == "reset"

    run(main())


def test_a_cancelled_release_drops_the_connection() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool(min_size=0)
            connection = await pool.acquire()
            release = start(pool.release(connection))
            await settle()
            release.cancel()
            await settle()
            assert connection.is_closed
            assert (pool.free_size, bench.server.backends) == (pool.max_size, 0)

    run(main())


def test_a_release_that_hangs_on_a_well_host() -> None:
    async def main() -> None:
        async with Bench(release_hangs=True) as bench:
            pool = await bench.pool()
            connection = await pool.acquire()
            release = start(pool.release(connection))
            await asyncio.sleep(60)
            assert not release.done()
            await bench.adapter.terminate_pool(pool)
            with pytest.raises(FakeError):
                await release

    run(main())


def test_a_connection_is_given_back_once() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool()
            connection = await pool.acquire()
            await bench.adapter.release_to_pool(connection, pool)
            with pytest.raises(FakeError, match="not out"):
                await bench.adapter.release_to_pool(connection, pool)

    run(main())


def test_closed_idle_connections_are_not_handed_out() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool(min_size=3)
            bench.server.break_connections()
            assert not (await pool.acquire()).is_closed
            assert bench.server.backends == 1

    run(main())


def test_closing_waits_for_what_is_out() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool()
            held = await pool.acquire()
            close = start(pool.close())
            await asyncio.sleep(5)
            assert not close.done()
            with pytest.raises(FakeError, match="closed"):
                await pool.acquire()
            await pool.release(held)
            await close
            bench.network.assert_nothing_left()
            await bench.adapter.close_pool(pool)

    run(main())


def test_closing_hangs_on_a_frozen_host_until_terminated() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool()
            bench.server.freeze()
            close = start(pool.close())
            await asyncio.sleep(60)
            assert not close.done()
            await bench.adapter.terminate_pool(pool)
            await close
            bench.network.assert_nothing_left()

    run(main())


@pytest.mark.parametrize("suspends", [True, False])
def test_terminating_a_pool_waits_for_nobody(suspends: bool) -> None:
    async def main() -> None:
        async with Bench(terminate_pool_suspends=suspends) as bench:
            pool = await bench.pool(max_size=2)
            out = [await pool.acquire() for _ in range(2)]
            bench.server.freeze()
            query = start(out[0].fetch_scalar("select 1"))
            opening, waiting = start(pool.acquire()), start(pool.acquire())
            await settle()
            began = now()
            terminate = bench.adapter.terminate_pool(pool).__await__()
            if suspends:
                next(terminate)
                assert not pool.is_closed
            first_step(terminate)
            await settle()
            assert now() == began
            for task in (query, waiting):
                assert isinstance(task.exception(), FakeError)
            assert not opening.done()
            bench.server.thaw()
            await asyncio.wait([opening])
            assert isinstance(opening.exception(), FakeError)
            for connection in out:
                await pool.release(connection)
            bench.network.assert_nothing_left()
            await bench.adapter.terminate_pool(pool)

    run(main())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"min_size": 3, "max_size": 2}, ValueError),
        ({"min_size": -1}, ValueError),
        ({"max_size": 0, "min_size": 0}, ValueError),
        ({"host": "db9"}, TypeError),
    ],
)
def test_bad_pool_options(options: dict[str, Any], error: type[Exception]) -> None:
    async def main() -> None:
        async with Bench() as bench:
            assert isinstance(bench.adapter, ChecksOptions)
            with pytest.raises(error):
                bench.adapter.check_options(bench.targets["db1:5432"], **options)
            with pytest.raises(error):
                await bench.pool(**options)
            assert bench.server.connects == 0

    run(main())


def test_unknown_acquire_arguments() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool()
            with pytest.raises(TypeError):
                await bench.adapter.acquire_from_pool(pool, patience=3)

    run(main())


# Writes and blocks


def test_writes_are_recorded_and_refused_where_they_cannot_be() -> None:
    async def main() -> None:
        async with Bench() as bench:
            master = await (await bench.pool()).acquire()
            replica = await (await bench.pool("db2:5432")).acquire()
            assert await master.execute("INSERT INTO t VALUES (1)") == 1
            assert await master.execute("select 1") == 1
            with pytest.raises(FakeError) as refused:
                await replica.execute("insert into t values (2)")
            assert refused.value.sqlstate == "25006"
            bench.server.read_only = True
            with pytest.raises(FakeError):
                await master.execute("update t set a = 3")
            assert bench.server.writes == ["INSERT INTO t VALUES (1)"]
            assert replica.server.writes == []

    run(main())


async def block(bench: Bench, connection: FakeConnection, exc: Exception | None) -> None:
    await connection.execute("insert")
    await bench.adapter.end_block(connection, exc)


def test_a_block_commits_rolls_back_or_does_nothing() -> None:
    async def main() -> None:
        async with Bench(commits_at_end=True) as bench:
            pool = await bench.pool()
            connection = await pool.acquire()
            await block(bench, connection, ValueError())
            assert bench.server.writes == []
            await connection.execute("insert 1")
            await pool.release(connection)
            assert bench.server.writes == []
            connection = await pool.acquire()
            await block(bench, connection, None)
            assert bench.server.writes == ["insert"]
            log = len(bench.server.log)
            await bench.adapter.end_block(connection, None)
            assert len(bench.server.log) == log

            bench.adapter.quirks.commits_at_end = False
            await connection.execute("insert 2")
            assert bench.server.writes == ["insert", "insert 2"]
            await bench.adapter.end_block(connection, ValueError())
            assert len(bench.server.log) == log + 1

    run(main())


def test_the_end_of_a_terminated_block_never_looks_like_a_commit() -> None:
    async def main() -> None:
        async with Bench(commits_at_end=True) as bench:
            pool = await bench.pool()
            for work in (True, False):
                connection = await pool.acquire()
                if work:
                    await connection.execute("insert")
                connection.terminate()
                with pytest.raises(FakeError):
                    await bench.adapter.end_block(connection, None)
                await bench.adapter.end_block(connection, ValueError())
                await pool.release(connection)
            assert bench.server.writes == []

    run(main())


def test_the_commit_of_a_frozen_host_ends_by_termination() -> None:
    async def main() -> None:
        async with Bench(commits_at_end=True) as bench:
            connection = await (await bench.pool()).acquire()
            await connection.execute("insert")
            bench.server.freeze()
            end = start(bench.adapter.end_block(connection, None))
            await asyncio.sleep(60)
            assert not end.done()
            connection.terminate()
            with pytest.raises(FakeError):
                await end
            bench.server.thaw()
            await asyncio.sleep(60)
            assert bench.server.writes == []

    run(main())


# What is seen


def test_leftovers_are_named() -> None:
    async def main() -> None:
        network = FakeNetwork.cluster(0)
        adapter = FakeAdapter(network)
        (target,) = parse_dsn(network.dsn)
        pool = await adapter.create_pool(target, min_size=0)
        await pool.acquire()
        with pytest.raises(AssertionError, match=r"FakeFlow 1 to db1.*FakePool db1:5432 out=1"):
            network.assert_nothing_left()
        pool.terminate()
        assert network.leftovers == []

    run(main())


def test_reprs() -> None:
    async def main() -> None:
        async with Bench() as bench:
            pool = await bench.pool(min_size=0)
            connection = await pool.acquire()
            assert repr(pool) == "<FakePool db1:5432 out=1 idle=0 max=11>"
            assert repr(connection) == "<FakeConnection 1 to db1:5432>"
            pool.terminate()
            assert repr(pool) == "<FakePool db1:5432 out=1 idle=0 max=11 closed>"
            assert repr(connection) == "<FakeConnection 1 to db1:5432 closed>"
            bench.server.freeze()
            assert repr(bench.server) == "<FakeServer db1 frozen master timeline=1>"

    run(main())
