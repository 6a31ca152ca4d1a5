"""The part of `pyscopg2.testing.contract` on how connections are given back to their pool."""

import asyncio
import gc
import warnings
from typing import Generic, cast

import pytest

from pyscopg2.core.adapter import ConnT, PoolT, ReturnsEarly
from pyscopg2.testing.bench import A_MOMENT, SOON, Bench
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("ReleaseContract",)


class ReleaseContract(Generic[PoolT, ConnT]):
    """A part of `AdapterContract`."""

    @in_own_loop
    async def test_giving_back_does_not_wait_for_those_who_connect(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        async with bench.pool(0, 4) as pool:
            connection = await bench.acquire(pool)
            pid = await bench.fetch(connection, "SELECT pg_backend_pid()")
            bench.cluster.freeze(bench.node)
            bench.thaw_backend(int(str(pid)))
            acquiring = [asyncio.ensure_future(bench.acquire(pool)) for _ in range(4)]
            _, connecting = await asyncio.wait(acquiring, timeout=A_MOMENT)
            assert connecting, "a new connection to a frozen server"
            await bench.soon(bench.release(connection, pool))
            bench.cluster.thaw(bench.node)
            await bench.end(*acquiring)
            for task in acquiring:
                await bench.release(task.result(), pool)
            await bench.all_slots_are_free(pool)

    @in_own_loop
    async def test_releasing_a_broken_connection_frees_its_slot(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        async with bench.pool(0, 1) as pool:
            for _ in range(3):
                connection = await bench.acquire(pool)
                pid = await bench.fetch(connection, "SELECT pg_backend_pid()")
                bench.psql(f"SELECT pg_terminate_backend({pid})")
                asking = bench.fetch(connection, "SELECT 1")
                await bench.fails(asking, "the server has ended its connection")
                closed = bench.adapter.is_connection_closed(connection)
                assert closed, "is_connection_closed() after an error that broke the connection"
                await bench.release_quietly(connection, pool)
            await bench.all_slots_are_free(pool)

    @in_own_loop
    async def test_releasing_a_terminated_connection_frees_its_slot(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        async with bench.pool(0, 1) as pool:
            for _ in range(3):
                connection = await bench.acquire(pool)
                for _ in range(2):
                    bench.adapter.terminate_connection(connection)
                closed = bench.adapter.is_connection_closed(connection)
                assert closed, "is_connection_closed() after terminate_connection()"
                await bench.release_quietly(connection, pool)
                bench.adapter.terminate_connection(connection)
            await bench.all_slots_are_free(pool)

    @in_own_loop
    async def test_a_transaction_that_is_left_open_does_not_reach_the_next_user(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        """It was begun past whatever the driver or its pool knows of transactions."""
        async with bench.pool(0, 1) as pool:
            for _ in range(2):
                connection = await bench.acquire(pool)
                with warnings.catch_warnings():
                    # Some drivers say that they roll it back.
                    warnings.simplefilter("ignore")
                    await bench.subject.execute(connection, "BEGIN")
                    item = await bench.insert(connection)
                    await bench.release_quietly(connection, pool)
                await bench.no_transactions()
                assert not bench.is_there(item), "release_to_pool() commits what was left open"
                await bench.all_slots_are_free(pool)
            taken = await bench.take(pool, bench.size_of(pool))
            for connection in taken:
                if bench.subject.autocommit:
                    item = await bench.insert(connection)
                    told = "the next user is in a transaction that another one has begun"
                    assert bench.is_there(item), told
                await bench.release(connection, pool)

    @in_own_loop
    async def test_a_double_release_frees_nothing_twice(self, bench: Bench[PoolT, ConnT]) -> None:
        async with bench.pool(0, 2) as pool:
            connection = await bench.acquire(pool)
            await bench.release(connection, pool)
            await bench.release_quietly(connection, pool)
            await bench.all_slots_are_free(pool)

    @pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
    @in_own_loop
    async def test_a_cancelled_release_leaves_nothing_out(
        self, bench: Bench[PoolT, ConnT], frozen: bool
    ) -> None:
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
                assert done, f"release_to_pool() was cancelled, and did not end in {SOON:g} s"
                if frozen:
                    bench.cluster.thaw(bench.node)
            await bench.all_slots_are_free(pool)
            await bench.no_transactions()

    def test_a_pool_may_end_while_a_cancelled_release_hangs(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        unheard: list[str] = []

        async def end_the_pool() -> None:
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
            await bench.soon(bench.adapter.terminate_pool(pool))
            bench.cluster.thaw(bench.node)
            await bench.no_backends()

        bench.run(end_the_pool())
        # Only now that the loop has ended is all gone that could be told of.
        gc.collect()
        assert not unheard, "the event loop was told of errors that nobody heard"

    @pytest.mark.parametrize("broken", [False, True], ids=["healthy", "broken"])
    @in_own_loop
    async def test_what_is_said_to_be_back_can_be_taken_at_once(
        self, bench: Bench[PoolT, ConnT], broken: bool
    ) -> None:
        """By an adapter that says so: then the driver's acquire need not wait for it any more."""
        if not isinstance(bench.adapter, ReturnsEarly):
            pytest.skip("the adapter does not return early")
        early = cast("ReturnsEarly[PoolT, ConnT]", bench.adapter)
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
                await bench.soon(early.return_to_pool(connection, pool, returned))
                # By now it is free in any case; a broken one may have come back in silence.
                over = True
                if took or not broken:
                    (taken,) = took
                    assert taken is not None, (
                        "return_to_pool() said so too early: the driver did not have it yet"
                    )
                    await bench.release(taken, pool)
                    took.clear()
            await bench.release(other, pool)
            await bench.all_slots_are_free(pool)
