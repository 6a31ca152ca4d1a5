"""The part of `pyscopg2.testing.contract` on how connections are taken from a pool."""

import asyncio
import random
from typing import Generic

import pytest

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.testing.bench import A_MOMENT, Bench, cancelled_at, without_garbage_collector
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("AcquireContract",)


class AcquireContract(Generic[PoolT, ConnT]):
    """A part of `AdapterContract`."""

    @in_own_loop
    async def test_an_acquired_connection_works_and_is_reused(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        async with bench.pool(1, 1) as pool:
            pids: set[object] = set()
            for _ in range(3):
                connection = await bench.acquire(pool)
                closed = bench.adapter.is_connection_closed(connection)
                assert not closed, "is_connection_closed() of a connection that was just acquired"
                pids.add(await bench.fetch(connection, "SELECT pg_backend_pid()"))
                await bench.release(connection, pool)
            # The user's slot and the monitor's.
            assert len(pids) <= 2, "the pool connects anew, and does not reuse what was released"

    @in_own_loop
    async def test_connections_that_broke_while_idle_are_not_handed_out(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        async with bench.pool(0, 1) as pool:
            await bench.all_slots_are_free(pool)
            bench.end_backends()
            await bench.all_hang_up()
            try:
                await bench.all_slots_are_free(pool)
            except Exception as exc:
                pytest.fail(
                    "acquire_from_pool() hands out a connection that the server has closed while it"
                    f" was idle: {exc!r}"
                )

    @in_own_loop
    async def test_an_unknown_acquire_argument_is_an_error_at_once(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        async with bench.pool(1, 1) as pool:

            async def acquire() -> None:
                # Some drivers refuse it before there is anything to await.
                await bench.adapter.acquire_from_pool(pool, no_such_argument=1)

            await bench.refuses(acquire(), TypeError, "it knows no `no_such_argument`")
            await bench.all_slots_are_free(pool)

    @in_own_loop
    async def test_a_cancelled_acquire_leaves_nothing_out(self, bench: Bench[PoolT, ConnT]) -> None:
        async with bench.pool(0, 3) as pool:
            for turns in range(40):
                acquiring = asyncio.ensure_future(bench.acquire(pool))
                for _ in range(turns):
                    await asyncio.sleep(0)
                acquiring.cancel()
                await bench.end(acquiring)
                if not acquiring.cancelled():
                    await bench.release(acquiring.result(), pool)
            await bench.all_slots_are_free(pool)

    @pytest.mark.parametrize("late", [False, True], ids=["waiting", "just answered"])
    @in_own_loop
    async def test_a_cancelled_acquire_never_succeeds(
        self, bench: Bench[PoolT, ConnT], late: bool
    ) -> None:
        """Wherever it is cancelled, and at the very moment when what it waits for has come: a
        cancellation that is lost there is lost for the user's whole task."""
        async with bench.pool(0, 2) as pool:
            # The one that the pool was created with: from now on an acquire connects.
            connection = await bench.acquire(pool)
            turn = successes = 0
            while successes < 3:  # a pool may keep the two that cancelled acquires have opened
                acquiring = asyncio.ensure_future(cancelled_at(bench.acquire(pool), turn, late))
                await bench.end(acquiring)
                if acquiring.cancelled():
                    turn, successes = turn + 1, 0
                    continue
                assert not acquiring.cancelling(), "a cancelled acquire_from_pool() succeeded"
                successes += 1
                bench.adapter.terminate_connection(acquiring.result())
                await bench.release_quietly(acquiring.result(), pool)
            await bench.release(connection, pool)
            await bench.all_slots_are_free(pool)

    @pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
    @in_own_loop
    async def test_a_cancelled_acquire_closes_its_socket_with_the_pool(
        self, bench: Bench[PoolT, ConnT], frozen: bool
    ) -> None:
        """Without the garbage collector."""
        bench.needs("cancels_connects")
        with without_garbage_collector():
            for turn in range(1 if frozen else 8):
                pool = await bench.create(bench.target(), **bench.sizes(0, 3))
                taken = [await bench.acquire(pool)]
                if frozen:
                    bench.cluster.freeze(bench.node)
                    acquiring = [asyncio.ensure_future(bench.acquire(pool)) for _ in range(3)]
                    _, connecting = await asyncio.wait(acquiring, timeout=A_MOMENT)
                    assert connecting, "a new connection to a frozen server"
                    while connecting:
                        connecting.pop().cancel()
                else:
                    cancelled = cancelled_at(bench.acquire(pool), turn, False)
                    acquiring = [asyncio.ensure_future(cancelled)]
                    await bench.end(*acquiring)
                taken += [t.result() for t in acquiring if t.done() and not t.cancelled()]
                while taken:
                    bench.adapter.terminate_connection(taken[-1])
                    await bench.release_quietly(taken.pop(), pool)
                await bench.soon(bench.adapter.terminate_pool(pool))
                await bench.end(*acquiring)
                acquiring.clear()
                await bench.sockets_close()

    @in_own_loop
    async def test_a_burst_with_cancellations_leaves_all_slots_free(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        bench.needs("terminates_queries")
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

        async with bench.pool(2, 7) as pool:
            await asyncio.gather(*(use(pool) for _ in range(8)))
            await bench.all_slots_are_free(pool)
