"""The part of `pyscopg2.testing.contract` on blocks, and what is committed at their end."""

from typing import Generic

import pytest

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.testing.bench import Bench
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("BlockContract",)


class BlockContract(Generic[PoolT, ConnT]):
    """A part of `AdapterContract`."""

    @in_own_loop
    async def test_a_block_that_ends_well_ends_as_the_drivers_own(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            item = await bench.insert(connection)
            await bench.end_block(connection, None)
            await bench.release(connection, pool)
            expected = bench.subject.commits or bench.subject.autocommit
            is_there = bench.is_there(item)
            assert is_there is expected, "whether end_block() commits (`commits` of the subject)"
            await bench.no_transactions()

    @in_own_loop
    async def test_a_block_that_raises_keeps_nothing_that_was_not_committed(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            item = await bench.insert(connection)
            await bench.end_block(connection, RuntimeError("the block's"))
            await bench.release(connection, pool)
            is_there = bench.is_there(item)
            why = "end_block() of a block that raised has committed"
            assert is_there is bench.subject.autocommit, why
            await bench.no_transactions()

    @in_own_loop
    async def test_a_block_whose_connection_was_terminated_never_looks_committed(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            item = await bench.insert(connection)
            bench.adapter.terminate_connection(connection)
            if bench.subject.commits:
                ending = bench.end_block(connection, None)
                await bench.fails(ending, "end_block() can't commit on a terminated connection")
            else:
                await bench.end_block_quietly(connection)
            await bench.release_quietly(connection, pool)
            is_there = bench.is_there(item)
            assert is_there is bench.subject.autocommit, "it was committed in the end"

    @in_own_loop
    async def test_what_the_server_refuses_at_the_end_of_a_block_is_told(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        """A deferred constraint is checked where the transaction commits."""
        async with bench.pool(0, 1) as pool:
            connection = await bench.acquire(pool)
            failure: Exception | None = None
            try:
                twice = "INSERT INTO deferring VALUES ('twice'), ('twice')"
                await bench.subject.execute(connection, twice)
            except Exception as exc:
                failure = exc
            told = "whether `execute` commits each statement (`autocommit` of the subject)"
            assert (failure is not None) is bench.subject.autocommit, told
            try:
                await bench.soon(bench.end_block(connection, failure))
            except Exception as exc:
                assert bench.subject.commits, f"end_block() has nothing to commit: {exc!r}"
                failure = exc
            if bench.subject.commits or bench.subject.autocommit:
                bench.tells(failure, "23505")
            await bench.release(connection, pool)
            await bench.no_transactions()
            await bench.all_slots_are_free(pool)
            written = bench.psql("SELECT count(*) FROM deferring")
            assert written == "0", "what the server has refused is written"

    @pytest.mark.parametrize("released", [False, True], ids=["terminated", "and released"])
    @in_own_loop
    async def test_a_users_own_commit_on_a_terminated_connection_raises(
        self, bench: Bench[PoolT, ConnT], released: bool
    ) -> None:
        if not bench.subject.transactions:
            pytest.skip("the subject has no transactions")
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
                    by_accident = isinstance(exc, AttributeError)
                    assert not by_accident, f"{name} failed by accident: {exc!r}"
                assert not committed, (
                    f"{name} ended as if it had committed on a connection that"
                    " terminate_connection() has cut off"
                )
                assert not bench.is_there(item), f"{name} has committed on a terminated connection"
                if not released:
                    await bench.release_quietly(connection, pool)
            await bench.all_slots_are_free(pool)
