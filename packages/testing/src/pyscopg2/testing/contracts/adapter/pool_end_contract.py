"""The part of `pyscopg2.testing.contract` on how pools are closed and terminated."""

import asyncio
from typing import Generic

import pytest

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.testing.bench import A_MOMENT, Bench
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("PoolEndContract",)


class PoolEndContract(Generic[PoolT, ConnT]):
    """A part of `AdapterContract`."""

    @in_own_loop
    async def test_closing_a_pool_ends_its_backends(self, bench: Bench[PoolT, ConnT]) -> None:
        pool = await bench.create(bench.target())
        await bench.soon(bench.close_pool(pool))
        await bench.no_backends()

    @in_own_loop
    async def test_terminating_a_pool_waits_for_nobody(self, bench: Bench[PoolT, ConnT]) -> None:
        bench.needs("terminates_queries")
        pool = await bench.create(bench.target())
        connection = await bench.acquire(pool)
        query = asyncio.ensure_future(bench.fetch(connection, "SELECT pg_sleep(60)"))
        await bench.until_running()
        # As the core does, always: a driver's pool may forget what is out.
        bench.adapter.terminate_connection(connection)
        await bench.soon(bench.adapter.terminate_pool(pool))
        await bench.fails(query, "its connection was terminated")
        await bench.no_backends()

    @in_own_loop
    async def test_terminating_a_pool_of_a_frozen_server_and_again(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        pool = await bench.create(bench.target())
        connection = await bench.acquire(pool)
        bench.cluster.freeze(bench.node)
        bench.adapter.terminate_connection(connection)
        for _ in range(2):
            await bench.soon(bench.adapter.terminate_pool(pool))
        bench.cluster.thaw(bench.node)
        await bench.no_backends()

    @pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
    @in_own_loop
    async def test_a_pool_can_be_terminated_right_after_its_creation(
        self, bench: Bench[PoolT, ConnT], frozen: bool
    ) -> None:
        pool = await bench.create(bench.target(), **bench.sizes(3, 5))
        if frozen:
            bench.cluster.freeze(bench.node)
        await bench.soon(bench.adapter.terminate_pool(pool))
        await bench.sockets_close()

    @pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled first", "cancelled last"])
    @in_own_loop
    async def test_acquires_that_connect_to_a_frozen_server_end_with_their_pool(
        self, bench: Bench[PoolT, ConnT], cancelled: bool
    ) -> None:
        """They are cancelled, too: the core waits for them no longer when it ends a pool."""
        bench.needs("cancels_connects")
        pool = await bench.create(bench.target(), **bench.sizes(0, 3))
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
        await bench.soon(bench.adapter.terminate_pool(pool))
        if not cancelled:
            for task in connecting:
                task.cancel()
        await bench.end(*connecting)
        failed = all(task.cancelled() or task.exception() for task in connecting)
        assert failed, "acquire_from_pool() succeeded, cancelled and on a frozen server"
        await bench.release_quietly(connection, pool)
        bench.cluster.thaw(bench.node)

    @in_own_loop
    async def test_a_pool_closes_when_all_its_connections_were_terminated(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        pool = await bench.create(bench.target())
        taken = [await bench.acquire(pool) for _ in range(3)]
        for connection in taken:
            bench.adapter.terminate_connection(connection)
            await bench.release_quietly(connection, pool)
        await bench.soon(bench.close_pool(pool))
        await bench.sockets_close()

    @in_own_loop
    async def test_what_is_terminated_again_disturbs_nobody(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        """Others may have its file descriptor by then, and its slot in the pool."""
        bench.needs("terminates_queries")
        old = await bench.create(bench.target())
        async with bench.pool(0, 3) as pool:
            ended = [(await bench.acquire(old), old), (await bench.acquire(pool), pool)]
            for connection, its_pool in ended:
                bench.adapter.terminate_connection(connection)
                await bench.release_quietly(connection, its_pool)
            await bench.soon(bench.adapter.terminate_pool(old))
            await bench.sockets_close(bench.adapter.get_pool_maxsize(pool))
            taken = [await bench.acquire(pool) for _ in range(4)]
            queries = [
                asyncio.ensure_future(bench.fetch(connection, "SELECT pg_sleep(60)"))
                for connection in taken
            ]
            await bench.until_running(len(queries))
            for connection, _ in ended:
                bench.adapter.terminate_connection(connection)
            await bench.soon(bench.adapter.terminate_pool(old))
            bench.cancel_queries()
            await bench.end(*queries)
            for connection, query in zip(taken, queries, strict=True):
                bench.tells(query.exception(), "57014")
                await bench.release(connection, pool)
            await bench.all_slots_are_free(pool)
