"""The part of `pyscopg2.testing.manager_contract` on blocks, and what is committed at their end."""

from typing import Generic

import pytest

from pyscopg2.core.adapter import ConnT, PoolT, RunsTransactions
from pyscopg2.testing.bench import PATIENCE
from pyscopg2.testing.contracts.manager.desk import SIZE, Desk
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("BlockContract",)


class BlockContract(Generic[PoolT, ConnT]):
    """A part of `ManagerContract`."""

    @in_own_loop
    async def test_a_block_ends_as_the_drivers_own(self, desk: Desk[PoolT, ConnT]) -> None:
        driver = desk.subject.driver
        async with desk.manager() as manager:
            async with manager.acquire() as connection:
                await desk.insert(connection, "ended")
            with pytest.raises(ZeroDivisionError):
                async with manager.acquire() as connection:
                    await desk.insert(connection, "raised")
                    raise ZeroDivisionError
            connection = await manager.acquire()
            await desk.insert(connection, "awaited")
            await manager.release(connection)
            async with manager.acquire() as connection:
                await desk.insert(connection, "committed")
                await desk.subject.commit(connection)
            assert desk.has("ended") is (driver.commits or driver.autocommit), (
                "whether a block that ends well commits"
            )
            assert desk.has("raised") is driver.autocommit, "a block that raised has committed"
            assert desk.has("awaited") is driver.autocommit, (
                "a release without a block has committed"
            )
            assert desk.has("committed"), "`commit` of the subject does not commit"
            pool = await manager.get_pool(read_only=False)
            assert manager.get_pool_freesize(pool) == SIZE, "a slot is lost"

    @in_own_loop
    async def test_a_block_whose_connection_was_terminated_never_looks_committed(
        self, desk: Desk[PoolT, ConnT]
    ) -> None:
        driver = desk.subject.driver
        for end in ("manager", "backend"):
            failed = False
            async with desk.manager() as manager:
                try:
                    async with manager.acquire() as connection:
                        # Beforehand: `fetch_scalar` may end the transaction that it is called in.
                        pid = await desk.pid_of(manager, connection)
                        await desk.insert(connection, end)
                        if end == "manager":
                            await manager.terminate()
                        else:
                            await desk.end_process(pid)
                except desk.subject.errors:
                    failed = True
            assert failed or not driver.commits, (
                "the end of a block looks committed, and its connection was cut off"
            )
            assert desk.has(end) is driver.autocommit, (
                "it was committed on a connection that was cut off"
            )

    @in_own_loop
    async def test_a_block_whose_connection_is_lost_is_run_once_more_by_attempts(
        self, desk: Desk[PoolT, ConnT]
    ) -> None:
        desk.needs("sqlstates")
        blocks = 0
        async with desk.manager() as manager:
            if not isinstance(manager.adapter, RunsTransactions):
                pytest.skip("the adapter runs no transactions for attempts")
            async for attempt in manager.attempts(timeout=PATIENCE):
                async with attempt as connection:
                    blocks += 1
                    pid = await desk.pid_of(manager, connection)
                    await desk.insert(connection, f"by attempt {blocks}")
                    if blocks == 1:
                        await desk.end_process(pid)
                    await desk.insert(connection, f"also by attempt {blocks}")
        assert blocks == 2, "a block whose connection was lost is run once more"
        assert not desk.has("by attempt 1"), "a transaction that was lost is committed"
        assert desk.has("by attempt 2"), "an attempt that ended well is not committed"
        assert desk.has("also by attempt 2"), "an attempt that ended well is not committed"
