"""The part of `pyscopg2.testing.contract` on transactions around blocks that are tried again."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, cast

import pytest

from pyscopg2.core.adapter import ConnT, PoolT, RunsTransactions
from pyscopg2.core.attempts.evidence import EVIDENCE_QUERY, parse_evidence
from pyscopg2.core.attempts.repeatable import is_lost
from pyscopg2.testing.bench import Bench
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("TransactionContract",)


class TransactionContract(Generic[PoolT, ConnT]):
    """A part of `AdapterContract`."""

    @in_own_loop
    async def test_a_transaction_is_committed_with_the_end_of_its_block_and_not_before(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        begin = _needed(bench)
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            async with begin(connection):
                item = await bench.insert(connection)
                told = parse_evidence(await bench.fetch(connection, EVIDENCE_QUERY))
                assert told is not None, "fetch_scalar() gives something else than the text"
                assert told.xid is not None, "fetch_scalar() is no statement of the transaction"
                assert not bench.is_there(item), "it was committed before the transaction's end"
            assert bench.is_there(item), "transaction() does not commit"
            await bench.no_transactions()
            await bench.release(connection, pool)
            await bench.all_slots_are_free(pool)

    @in_own_loop
    async def test_a_transaction_whose_block_raises_is_rolled_back(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        begin = _needed(bench)
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            blocks = RuntimeError("the block's")
            item = ""

            async def fail() -> None:
                nonlocal item
                async with begin(connection):
                    item = await bench.insert(connection)
                    raise blocks

            error = await bench.fails(fail(), "its block has raised")
            assert error is blocks, f"transaction() lets pass another error: {error!r}"
            assert not bench.is_there(item), "transaction() commits a block that has raised"
            await bench.no_transactions()
            async with begin(connection):
                item = await bench.insert(connection)
            assert bench.is_there(item), "a transaction after one that was rolled back"
            await bench.release(connection, pool)

    @pytest.mark.parametrize("ended_by", ["terminate_connection", "server"])
    @in_own_loop
    async def test_a_transaction_whose_connection_is_lost_never_looks_committed(
        self, bench: Bench[PoolT, ConnT], ended_by: str
    ) -> None:
        begin = _needed(bench)
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            item = ""

            async def lose() -> None:
                nonlocal item
                async with begin(connection):
                    item = await bench.insert(connection)
                    if ended_by == "server":
                        await asyncio.to_thread(bench.end_backends)
                    else:
                        bench.adapter.terminate_connection(connection)

            error = await bench.fails(lose(), "transaction() can't commit on a lost connection")
            by_accident = isinstance(error, AttributeError)
            assert not by_accident, f"transaction() failed by accident: {error!r}"
            await bench.release_quietly(connection, pool)
            assert not bench.is_there(item), "it was committed in the end"

    @pytest.mark.parametrize("ended_by", ["terminate_connection", "server"])
    @in_own_loop
    async def test_errors_of_a_lost_connection_are_recognised(
        self, bench: Bench[PoolT, ConnT], ended_by: str
    ) -> None:
        bench.needs("sqlstates", "terminates_queries")
        begin = _needed(bench)
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            errors: list[Exception] = []

            async def lose() -> None:
                async with begin(connection):
                    sleeping = asyncio.ensure_future(
                        _execute(bench, connection, "SELECT pg_sleep(60)")
                    )
                    await bench.until_running()
                    if ended_by == "server":
                        await asyncio.to_thread(bench.end_backends)
                    else:
                        bench.adapter.terminate_connection(connection)
                    errors.append(await bench.fails(sleeping, "its connection is lost"))
                    later = _execute(bench, connection, "SELECT 1")
                    errors.append(await bench.fails(later, "its connection is lost"))
                    raise errors[-1]

            await bench.fails(lose(), "its connection is lost")
            await bench.release_quietly(connection, pool)
            bench.end_sleepers()
            for when, error in zip(("that waits", "after that"), errors, strict=True):
                assert is_lost(error, bench.adapter), (
                    f"neither sqlstate() nor is_lost_error() tells that a connection is lost, of"
                    f" what a query {when} raises: {error!r}"
                )

    @in_own_loop
    async def test_errors_of_a_statement_are_no_loss(self, bench: Bench[PoolT, ConnT]) -> None:
        begin = _needed(bench)
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            for statement in ("SELECT 1 / 0", "SELECT no_such_function()", "SELEC"):

                async def fail(statement: str = statement) -> None:
                    async with begin(connection):
                        await bench.subject.execute(connection, statement)

                error = await bench.fails(fail(), "the server refuses it")
                is_told = is_lost(error, bench.adapter)
                assert not is_told, f"it is told that a connection is lost, of {error!r}"
            await bench.no_transactions()
            await bench.release(connection, pool)

    @in_own_loop
    async def test_what_the_server_refuses_at_the_end_of_a_transaction_is_told(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        begin = _needed(bench)
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)

            async def write_twice() -> None:
                async with begin(connection):
                    await bench.subject.execute(
                        connection, "INSERT INTO deferring VALUES ('twice'), ('twice')"
                    )

            error = await bench.fails(write_twice(), "a deferred constraint is violated")
            bench.tells(error, "23505")
            await bench.no_transactions()
            await bench.release(connection, pool)
            assert bench.psql("SELECT count(*) FROM deferring") == "0", "it is written all the same"


def _needed(bench: Bench[PoolT, ConnT]) -> Callable[[ConnT], AbstractAsyncContextManager[object]]:
    """The verb. Asked for first of all: to skip a test is no error of what it waits for."""
    if not isinstance(bench.adapter, RunsTransactions):
        pytest.skip("the adapter runs no transactions for attempts")
    return cast("RunsTransactions[ConnT]", bench.adapter).transaction


async def _execute(bench: Bench[PoolT, ConnT], connection: ConnT, statement: str) -> None:
    await bench.subject.execute(connection, statement)
