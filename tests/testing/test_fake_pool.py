"""The fake driver's pool."""

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

import pytest
from tests.support.virtual import now, start, virtual
from tests.testing.fake_bench import Bench

from pyscopg2.core.adapter import ChecksOptions
from pyscopg2.testing.fake_server import FakeError
from pyscopg2.testing.virtual_time import settle

T = TypeVar("T")


def first_step(awaitable: Generator[Any, Any, T]) -> T:
    """The result of something that must not suspend."""
    with pytest.raises(StopIteration) as stop:
        next(awaitable)
    result: T = stop.value.value
    return result


@virtual
async def test_a_pool_has_room_for_one_more() -> None:
    async with Bench() as bench:
        pool = await bench.pool(min_size=2, max_size=3)
        assert len(pool.idle) == 3
        assert bench.adapter.get_pool_maxsize(pool) == 4
        assert pool.free_size == 4
        await pool.acquire()
        assert pool.free_size == 3


@virtual
async def test_idle_connections_are_given_last_in_first_out_without_suspending() -> None:
    async with Bench() as bench:
        pool = await bench.pool()
        first = await pool.acquire()
        second = await pool.acquire()
        await pool.release(first)
        await pool.release(second)
        acquire = bench.adapter.acquire_from_pool(pool, timeout=1)
        assert first_step(acquire.__await__()) is second
        assert await pool.acquire() is first


@virtual
async def test_who_finds_the_pool_full_waits_in_line() -> None:
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


@virtual
async def test_a_release_resets_and_hangs_on_a_frozen_host() -> None:
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


@virtual
async def test_a_cancelled_release_drops_the_connection() -> None:
    async with Bench() as bench:
        pool = await bench.pool(min_size=0)
        connection = await pool.acquire()
        release = start(pool.release(connection))
        await settle()
        release.cancel()
        await settle()
        assert connection.is_closed
        assert (pool.free_size, bench.server.backends) == (pool.max_size, 0)


@virtual
async def test_a_release_that_hangs_on_a_well_host() -> None:
    async with Bench(release_hangs=True) as bench:
        pool = await bench.pool()
        connection = await pool.acquire()
        release = start(pool.release(connection))
        await asyncio.sleep(60)
        assert not release.done()
        await bench.adapter.terminate_pool(pool)
        with pytest.raises(FakeError):
            await release


@virtual
async def test_a_connection_is_given_back_once() -> None:
    async with Bench() as bench:
        pool = await bench.pool()
        connection = await pool.acquire()
        await bench.adapter.release_to_pool(connection, pool)
        with pytest.raises(FakeError, match="not out"):
            await bench.adapter.release_to_pool(connection, pool)


@virtual
async def test_closed_idle_connections_are_not_handed_out() -> None:
    async with Bench() as bench:
        pool = await bench.pool(min_size=3)
        bench.server.break_connections()
        assert not (await pool.acquire()).is_closed
        assert bench.server.backends == 1


@virtual
async def test_closing_waits_for_what_is_out() -> None:
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


@virtual
async def test_closing_hangs_on_a_frozen_host_until_terminated() -> None:
    async with Bench() as bench:
        pool = await bench.pool()
        bench.server.freeze()
        close = start(pool.close())
        await asyncio.sleep(60)
        assert not close.done()
        await bench.adapter.terminate_pool(pool)
        await close
        bench.network.assert_nothing_left()


@pytest.mark.parametrize("suspends", [True, False])
@virtual
async def test_terminating_a_pool_waits_for_nobody(suspends: bool) -> None:
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


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"min_size": 3, "max_size": 2}, ValueError),
        ({"min_size": -1}, ValueError),
        ({"max_size": 0, "min_size": 0}, ValueError),
        ({"host": "db9"}, TypeError),
    ],
)
@virtual
async def test_bad_pool_options(options: dict[str, Any], error: type[Exception]) -> None:
    async with Bench() as bench:
        assert isinstance(bench.adapter, ChecksOptions)
        with pytest.raises(error):
            bench.adapter.check_options(bench.targets["db1:5432"], **options)
        with pytest.raises(error):
            await bench.pool(**options)
        assert bench.server.connects == 0


@virtual
async def test_unknown_acquire_arguments() -> None:
    async with Bench() as bench:
        pool = await bench.pool()
        with pytest.raises(TypeError):
            await bench.adapter.acquire_from_pool(pool, patience=3)
