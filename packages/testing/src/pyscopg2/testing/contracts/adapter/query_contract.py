"""The part of `pyscopg2.testing.contract` on queries: the role query, and what ends one early."""

import asyncio
import time
from typing import Generic

import pytest

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.testing.bench import A_MOMENT, AT_ONCE, Bench
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("QueryContract",)


class QueryContract(Generic[PoolT, ConnT]):
    """A part of `AdapterContract`."""

    @pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
    @in_own_loop
    async def test_terminating_a_connection_ends_its_pending_query_at_once(
        self, bench: Bench[PoolT, ConnT], frozen: bool
    ) -> None:
        bench.needs("terminates_queries")
        took: list[float] = []
        async with bench.pool(0, 1) as pool:
            # Nobody's fault on a machine that does other things, too: never thrice, though.
            while not took or (took[-1] > AT_ONCE and len(took) < 3):
                connection = await bench.acquire(pool)
                query = asyncio.ensure_future(bench.fetch(connection, "SELECT pg_sleep(60)"))
                await bench.until_running()
                if frozen:
                    bench.cluster.freeze(bench.node)
                began = time.monotonic()
                bench.adapter.terminate_connection(connection)
                await bench.fails(query, "terminate_connection() has cut off its connection")
                took.append(time.monotonic() - began)
                await bench.release_quietly(connection, pool)
                bench.cluster.thaw(bench.node)
                bench.end_sleepers()
        assert min(took) <= AT_ONCE, (
            "terminate_connection() comes late: the query that was under way ended after"
            f" {min(took):.1f} s"
        )

    @pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled first", "cancelled last"])
    @in_own_loop
    async def test_a_query_on_a_frozen_server_ends_when_it_is_cancelled_and_terminated(
        self, bench: Bench[PoolT, ConnT], cancelled: bool
    ) -> None:
        """A cancellation alone may take the driver long: it may want the server to agree."""
        bench.needs("terminates_queries")
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
            failed = query.cancelled() or query.exception() is not None
            assert failed, "a query succeeded on a connection that was terminated"
            await bench.release_quietly(connection, pool)
            bench.cluster.thaw(bench.node)
            await bench.all_slots_are_free(pool)

    @in_own_loop
    async def test_fetch_scalar_gives_the_first_column_of_the_first_row(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            for query, answer in (
                ("SELECT 'a b', 2", "a b"),
                ("SHOW transaction_read_only", "off"),
                ("SELECT concat_ws('%', 1, 2)", "1%2"),
            ):
                told = await bench.fetch(connection, query)
                assert told == answer, f"fetch_scalar() of {query}"
            await bench.release(connection, pool)

    @in_own_loop
    async def test_fetch_scalar_leaves_no_transaction_open(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            left_open = "fetch_scalar() leaves a transaction open"
            await bench.fetch(connection, "SELECT 1")
            assert bench.open_transactions() == 0, left_open
            failing = bench.fetch(connection, "SELECT no_such_function()")
            error = await bench.fails(failing, "there is no such function")
            bench.tells(error, "42883")
            assert bench.open_transactions() == 0, f"{left_open} where the query failed"
            answer = await bench.fetch(connection, "SELECT 1")
            assert str(answer) == "1", "fetch_scalar() after a query that failed"
            await bench.release(connection, pool)

    @in_own_loop
    async def test_a_query_that_the_server_cancels_is_an_error_and_no_cancellation(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            query = asyncio.ensure_future(bench.fetch(connection, "SELECT pg_sleep(60)"))
            await bench.until_running()
            bench.cancel_queries()
            bench.tells(await bench.fails(query, "the server has cancelled it"), "57014")
            answer = await bench.fetch(connection, "SELECT 1")
            assert str(answer) == "1", "fetch_scalar() after a query that the server cancelled"
            await bench.release(connection, pool)

    @in_own_loop
    async def test_a_query_that_is_cancelled_is_a_cancellation_and_no_error(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        """Whatever the driver makes of it: the server may be asked to cancel, and say so."""
        async with bench.pool(0, 1) as pool:
            for _ in range(2):
                connection = await bench.acquire(pool)
                query = asyncio.ensure_future(bench.fetch(connection, "SELECT pg_sleep(60)"))
                await bench.until_running()
                query.cancel()
                # A driver may ask the server to agree; the core does not wait for it.
                await asyncio.wait({query}, timeout=1.0)
                bench.adapter.terminate_connection(connection)
                await bench.end(query)
                assert query.cancelled(), (
                    f"fetch_scalar() was cancelled, and ended in another way: {query.exception()!r}"
                )
                await bench.release_quietly(connection, pool)
                bench.end_sleepers()
            await bench.all_slots_are_free(pool)

    def test_sqlstate_of_what_no_server_sent_is_none(self, bench: Bench[PoolT, ConnT]) -> None:
        for exc in (ValueError("42601"), OSError(111, "refused"), asyncio.CancelledError()):
            told = bench.adapter.sqlstate(exc)
            assert told is None, f"sqlstate() tells {told} of {exc!r}, which no server has sent"

    @in_own_loop
    async def test_sqlstate_is_that_of_this_very_error(self, bench: Bench[PoolT, ConnT]) -> None:
        """The core walks causes itself; in between may be what tells another story."""
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            failing = bench.fetch(connection, "SELECT no_such_function()")
            servers = await bench.fails(failing, "there is no such function")
            await bench.release(connection, pool)
        caused, in_context = RuntimeError("the application's"), RuntimeError("the application's")
        caused.__cause__ = in_context.__context__ = servers
        for exc in (caused, in_context):
            told = bench.adapter.sqlstate(exc)
            assert told is None, f"sqlstate() tells {told}, that of the cause, and not of {exc!r}"
