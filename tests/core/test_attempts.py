"""Attempts: what is run once more, when, until when, and what is raised in the end."""

import asyncio
import gc
import itertools
import random
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.conftest import (
    Bench,
    Moment,
    break_one,
    cancelled_at,
    in_use,
    make,
    now,
    out,
    start,
    virtual,
)

from pyscopg2.core.errors import AcquireTimeoutError, CommitUnknown, PoolManagerClosedError
from pyscopg2.testing.fake import FakeConnection, PooledFakeAdapter
from pyscopg2.testing.fake_server import FakeError

Failing = Callable[[int, FakeConnection], None]
"""Called in each block with its number, from 1 on."""


async def write(bench: Bench, fail: Failing = lambda number, connection: None, **given: Any) -> int:
    """Insert a row by attempts; how many blocks that took."""
    count = 0
    async for attempt in bench.manager.attempts(**given):
        async with attempt as connection:
            count += 1
            await connection.execute(f"insert {count}")
            fail(count, connection)
            await connection.execute("select")
    return count


def raising(*errors: BaseException) -> Failing:
    """In one block after the other."""

    def fail(number: int, _: FakeConnection) -> None:
        if number <= len(errors):
            raise errors[number - 1]

    return fail


def texts(bench: Bench, name: str = "db1") -> list[str]:
    """What was sent on users' connections, in short."""
    asked = {"begin", "commit", "rollback", "select"}
    return [e.text for e in bench[name].log if e.text in asked or e.text.startswith("insert")]


def remembered(errors: "weakref.WeakSet[FakeError]") -> FakeError:
    """An error, which no frame of a traceback knows by name."""
    error = FakeError.of("40001")
    errors.add(error)
    return error


# What is run once more


@virtual
async def test_a_block_that_ends_well_is_one_transaction() -> None:
    async with Bench() as bench:
        assert await write(bench) == 1
        assert bench["db1"].writes == ["insert 1"]
        assert texts(bench) == ["begin", "insert 1", "select", "commit"]


@pytest.mark.parametrize("code", ["40001", "40P01", "25006", "57P01", "57P03", "08006"])
@virtual
async def test_what_is_run_once_more(code: str) -> None:
    async with Bench() as bench:
        assert await write(bench, raising(FakeError.of(code))) == 2
        assert bench["db1"].writes == ["insert 2"], "the first one was rolled back"


@virtual
async def test_a_connection_that_breaks_within_the_block() -> None:
    async with Bench() as bench:

        def fail(number: int, connection: FakeConnection) -> None:
            if number == 1:
                break_one(connection)

        assert await write(bench, fail) == 2
        assert bench["db1"].writes == ["insert 2"]


@pytest.mark.parametrize(
    "error", [FakeError.of("23505"), FakeError.of("57014"), ValueError(), TimeoutError()], ids=repr
)
@virtual
async def test_what_is_the_users(error: Exception) -> None:
    async with Bench() as bench:
        with pytest.raises(type(error)) as raised:
            await write(bench, raising(error))
        assert raised.value is error
        assert bench["db1"].writes == []


@virtual
async def test_the_users_error_is_not_hidden_by_a_rollback_that_fails() -> None:
    async with Bench() as bench:

        def fail(_: int, connection: FakeConnection) -> None:
            break_one(connection)
            raise ValueError("the user's")

        with pytest.raises(ValueError, match="the user's"):
            await write(bench, fail)


@virtual
async def test_an_error_that_the_block_has_handled_is_its_own_matter() -> None:
    async with Bench() as bench:
        async for attempt in bench.manager.attempts():
            async with attempt as connection:
                bench["db1"].answers["select 1"] = FakeError.of("40001")
                with pytest.raises(FakeError):
                    await connection.execute("select 1")
                await connection.execute("insert 1")
        assert bench["db1"].writes == ["insert 1"]


@virtual
async def test_a_failover_in_the_middle_of_a_block() -> None:
    async with Bench() as bench:

        def fail(number: int, _: FakeConnection) -> None:
            if number == 1:
                bench.network.failover()

        assert await write(bench, fail) == 2
        assert bench["db2"].writes == ["insert 2"]


@virtual
async def test_a_master_that_becomes_a_replica_and_keeps_its_connections() -> None:
    async with Bench() as bench:
        count = 0
        async for attempt in bench.manager.attempts():
            async with attempt as connection:
                count += 1
                if count == 1:
                    bench["db1"].in_recovery = True
                    bench["db2"].promote()
                await connection.execute("insert 1")
        assert bench["db2"].writes == ["insert 1"]
        assert count > 1, "until the check that it suspects has told of the new roles"


@virtual
async def test_a_begin_that_fails_is_tried_again_where_the_attempt_is_entered() -> None:
    async with Bench() as bench:
        assert await write(bench) == 1
        bench.quirks.notices_breaks = False
        for connection in bench.pool("db1").idle:
            break_one(connection)
        assert await write(bench) == 1
        assert bench["db1"].writes == ["insert 1", "insert 1"]


@virtual
async def test_reads_are_run_once_more_without_a_transaction() -> None:
    async with Bench(replicas=2) as bench:
        seen: list[str] = []
        async for attempt in bench.manager.attempts(read_only=True):
            async with attempt as connection:
                seen.append(connection.address)
                if len(seen) == 1:
                    connection.server.down()
                await connection.execute("select")
        assert len(seen) == 2
        assert set(seen) == {"db2:5432", "db3:5432"}
        assert "begin" not in texts(bench, "db2") + texts(bench, "db3")


@virtual
async def test_a_read_that_writes_is_the_users_mistake() -> None:
    async with Bench() as bench:
        with pytest.raises(FakeError) as raised:
            await write(bench, read_only=True)
        assert raised.value.sqlstate == "25006"


@virtual
async def test_without_transactions_a_write_that_may_be_there_is_not_repeated() -> None:
    async with Bench(adapter=PooledFakeAdapter) as bench:
        assert await write(bench) == 1
        with pytest.raises(CommitUnknown, match="the adapter runs no transactions") as raised:
            await write(bench, raising(ConnectionResetError()))
        assert isinstance(raised.value.__cause__, ConnectionResetError)
        assert await write(bench, raising(ConnectionResetError()), idempotent=True) == 2
        assert await write(bench, raising(), idempotent=True) == 1


@virtual
async def test_the_arguments_are_those_of_acquire() -> None:
    async with Bench() as bench:
        bench["db2"].down()
        await bench.until_roles("master unavailable")
        async for attempt in bench.manager.attempts(read_only=True, fallback_master=True):
            async with attempt as connection:
                assert connection.address == "db1:5432"
        with pytest.raises(TypeError, match="no_such"):
            await write(bench, no_such=1)
        with pytest.raises(ValueError, match="are for reads"):
            await write(bench, max_lag=1.0)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"timeout": "5"}, TypeError),
        ({"read_only": "master"}, TypeError),
        ({"idempotent": 1}, TypeError),
    ],
    ids=repr,
)
def test_arguments_that_are_none(given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make().attempts(**given)


# The loop


@virtual
async def test_break_and_return_commit() -> None:
    async with Bench() as bench:

        async def leave() -> str:
            async for attempt in bench.manager.attempts():
                async with attempt as connection:
                    await connection.execute("insert 1")
                    return "left"
            raise AssertionError

        assert await leave() == "left"
        async for attempt in bench.manager.attempts():
            async with attempt as connection:
                await connection.execute("insert 2")
                break
        assert bench["db1"].writes == ["insert 1", "insert 2"]


@virtual
async def test_an_attempt_is_entered_once() -> None:
    async with Bench() as bench:
        attempts = bench.manager.attempts()
        attempt = await anext(attempts)
        with pytest.raises(RuntimeError, match="was not entered"):
            await anext(attempts)
        with pytest.raises(RuntimeError, match="has not been entered"):
            await attempt.__aexit__(None, None, None)
        async with attempt:
            with pytest.raises(RuntimeError, match="entered before"):
                await attempt.__aenter__()
            with pytest.raises(RuntimeError, match="goes on"):
                await anext(attempts)
        with pytest.raises(RuntimeError, match="entered before"):
            await attempt.__aenter__()
        with pytest.raises(RuntimeError, match="left before"):
            await attempt.__aexit__(None, None, None)
        with pytest.raises(StopAsyncIteration):
            await anext(attempts)


@virtual
async def test_an_error_that_is_handled_in_the_loop_ends_it() -> None:
    async with Bench() as bench:
        count = 0
        async for attempt in bench.manager.attempts():
            count += 1
            with pytest.raises(ValueError, match="the user's"):
                async with attempt:
                    raise ValueError("the user's")
        assert count == 1


# Pauses, and the deadline


@virtual
async def test_the_first_repeat_comes_at_once_and_later_ones_after_growing_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    async with Bench() as bench:
        times: list[float] = []

        def fail(number: int, _: FakeConnection) -> None:
            times.append(now())
            if number < 5:
                raise FakeError.of("40001")

        assert await write(bench, fail) == 5
        gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert gaps == pytest.approx([0.0, 0.05, 0.1, 0.2], abs=0.02)


@virtual
async def test_no_host_to_be_had_is_an_acquire_that_waits_until_the_deadline() -> None:
    async with Bench(replicas=0) as bench:
        bench["db1"].down()
        began = now()
        with pytest.raises(AcquireTimeoutError, match="within 3 s"):
            await write(bench, timeout=3)
        assert now() - began == pytest.approx(3, abs=0.01)
        writing = start(write(bench, timeout=5))
        await asyncio.sleep(3)
        bench["db1"].up()
        assert await writing == 1


@virtual
async def test_out_of_time_the_first_error_is_raised_with_a_line_for_each_other() -> None:
    async with Bench(replicas=0) as bench:
        first = FakeError("it was secret: the connection is closed", "40001")

        def fail(number: int, _: FakeConnection) -> None:
            if number == 1:
                raise first
            if number == 2:
                raise FakeError("deadlock \x1b[1m for user:secret", "40P01")
            bench["db1"].down()
            raise ConnectionResetError("reset")

        began = now()
        with pytest.raises(FakeError) as raised:
            await write(bench, fail, timeout=2)
        assert raised.value is first
        assert now() - began == pytest.approx(2, abs=0.01)
        notes = first.__notes__
        assert len(notes) == 3
        assert notes[0].startswith("attempt 2, after 0.0")
        assert notes[0].endswith(r"FakeError: deadlock \x1b[1m for user:***")
        assert notes[1].endswith("ConnectionResetError: reset")
        assert "AcquireTimeoutError: no connection to a master" in notes[2]
        assert "secret" not in "".join(notes)


@virtual
async def test_there_are_no_more_than_twenty_lines() -> None:
    async with Bench() as bench:
        with pytest.raises(FakeError) as raised:
            await write(bench, raising(*[FakeError.of("40001") for _ in range(200)]), timeout=20)
        notes = raised.value.__notes__
        assert len(notes) == 21
        assert notes[0].endswith("more errors")


@virtual
async def test_a_block_that_is_interrupted_by_the_deadline() -> None:
    async with Bench() as bench:
        began = now()
        with pytest.raises(TimeoutError, match="attempt 1 was interrupted: 2 s") as raised:
            async for attempt in bench.manager.attempts(timeout=2):
                async with attempt as connection:
                    await connection.execute("insert 1")
                    await asyncio.sleep(60)
        assert not isinstance(raised.value, AcquireTimeoutError)
        assert now() - began == pytest.approx(2, abs=0.01)
        assert bench["db1"].writes == []
        assert in_use(bench.manager) == 0


@virtual
async def test_a_frozen_host_holds_nobody_beyond_the_deadline() -> None:
    async with Bench(replicas=0, quirks=None, abandon_timeout=60) as bench:
        bench.quirks.cancel_delay = 30.0
        for where in ("block", "commit"):
            began = now()
            error = TimeoutError if where == "block" else CommitUnknown
            with pytest.raises(error):
                async for attempt in bench.manager.attempts(timeout=2):
                    async with attempt as connection:
                        await connection.execute("insert 1")
                        bench["db1"].freeze()
                        if where == "block":
                            await connection.execute("select")
                        else:
                            connection.server.refuse_evidence = None
                            bench["db1"].up()
                            asyncio.get_running_loop().call_later(0.0015, bench["db1"].freeze)
            assert now() - began == pytest.approx(2, abs=0.01)
            bench["db1"].up()
            await bench.until_roles("master", within=5)
        assert in_use(bench.manager) == 0


@virtual
async def test_interrupted_after_other_errors_the_first_one_counts() -> None:
    async with Bench() as bench:
        first = FakeError.of("40001")
        count = 0
        with pytest.raises(FakeError) as raised:
            async for attempt in bench.manager.attempts(timeout=2):
                async with attempt:
                    count += 1
                    if count == 1:
                        raise first
                    await asyncio.sleep(60)
        assert raised.value is first
        (note,) = first.__notes__
        assert "TimeoutError: attempt 2 was interrupted" in note


@virtual
async def test_the_users_own_timeout_is_the_users() -> None:
    async with Bench() as bench:
        with pytest.raises(TimeoutError) as raised:
            async with asyncio.timeout(1):
                async for attempt in bench.manager.attempts():
                    async with attempt as connection:
                        await connection.execute("insert 1")
                        await asyncio.sleep(60)
        assert "interrupted" not in str(raised.value)
        assert bench["db1"].writes == []


@virtual
async def test_a_manager_that_is_closed() -> None:
    async with Bench() as bench:
        await bench.manager.close()
        with pytest.raises(PoolManagerClosedError):
            await write(bench)


@virtual
async def test_what_went_wrong_is_not_kept_longer_than_it_is_needed() -> None:
    gc.collect()
    gc.disable()
    try:
        async with Bench() as bench:
            kept: weakref.WeakSet[FakeError] = weakref.WeakSet()

            def fail(number: int, _: FakeConnection) -> None:
                if number < 4:
                    raise remembered(kept)

            assert await write(bench, fail) == 4
            assert not kept
    finally:
        gc.enable()


# The budget


@virtual
async def test_a_cluster_that_fails_each_block_gets_little_more_than_the_attempts() -> None:
    async with Bench(replicas=0, size=50) as bench:
        blocks = 0
        began = now()

        async def use() -> None:
            nonlocal blocks
            with pytest.raises(FakeError):
                async for attempt in bench.manager.attempts(timeout=5):
                    async with attempt:
                        blocks += 1
                        raise FakeError.of("40001")

        using: list[asyncio.Task[None]] = []
        for _ in range(1000):
            using.append(start(use()))
            await asyncio.sleep(0.01)
        await asyncio.gather(*using)
        seconds = now() - began
        assert 1000 < blocks <= 1.2 * 1000 + 10 * (seconds + 1)


@virtual
async def test_a_dead_cluster_is_asked_for_connections_no_more_than_by_acquires() -> None:
    """An acquire waits for hosts by itself, so that there is nothing to repeat."""

    async def connects(use: Callable[[Bench], Any]) -> int:
        async with Bench() as bench:
            for name in ("db1", "db2"):
                bench[name].down()
            before = bench["db1"].connects
            await asyncio.gather(*(use(bench) for _ in range(200)), return_exceptions=True)
            return bench["db1"].connects - before

    async def by_attempts(bench: Bench) -> None:
        await write(bench, timeout=5)

    async def by_acquires(bench: Bench) -> None:
        async with bench.manager.acquire(timeout=5):
            pass

    assert await connects(by_attempts) <= 1.2 * await connects(by_acquires)


# Cancellation


@pytest.mark.parametrize("moment", ["waiting", "woken"])
@pytest.mark.parametrize("trouble", ["none", "lost block", "lost commit", "lost begin"])
@virtual
async def test_a_cancellation_at_each_await_passes_and_leaves_nothing(
    trouble: str, moment: Moment
) -> None:
    async with Bench() as bench:
        server = bench["db1"]

        def fail(number: int, connection: FakeConnection) -> None:
            if trouble == "lost block" and number == 1:
                break_one(connection)

        suspension = 0
        while True:
            suspension += 1
            if trouble == "lost commit":
                server.commits_unheard = 1
            elif trouble == "lost begin":
                bench.quirks.notices_breaks = False
                for connection in bench.pool("db1").idle:
                    break_one(connection)
            before = len(server.writes)
            task = await cancelled_at(write(bench, fail), suspension, moment)
            written = len(server.writes) - before
            server.commits_unheard = 0
            assert in_use(bench.manager) == 0
            assert out(bench.manager) == []
            assert written <= 1
            if not task.cancelled():
                assert task.exception() is None
                assert written == 1
                break
        assert suspension > 5


@virtual
async def test_cancelled_over_and_over() -> None:
    async with Bench() as bench:
        bench.quirks.cancel_delay = 0.0
        task = start(write(bench, raising(*[FakeError.of("40001") for _ in range(9)])))
        await asyncio.sleep(0.02)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()
        await asyncio.sleep(0.1)
        assert in_use(bench.manager) == 0
