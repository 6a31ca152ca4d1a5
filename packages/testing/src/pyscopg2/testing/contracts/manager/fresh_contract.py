"""The part of `pyscopg2.testing.manager_contract` on reads that see what was written before."""

import asyncio
from typing import Generic

import pytest

from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.wal import WalPosition
from pyscopg2.testing.bench import SOON
from pyscopg2.testing.contracts.manager.desk import Desk
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("FreshContract",)


class FreshContract(Generic[PoolT, ConnT]):
    """A part of `ManagerContract`."""

    @in_own_loop
    async def test_a_read_sees_what_was_written_before_it(self, desk: Desk[PoolT, ConnT]) -> None:
        """In a causal session, whether blocks write or connections that are released, and nobody's
        connection is lost for the question where the log is."""
        async with desk.manager() as manager:
            await manager.ready(1, 2)
            for number in range(6):
                item = f"causal {number}"
                with manager.causal() as session:
                    if number % 2:
                        async with manager.acquire_master() as connection:
                            await desk.insert(connection, item)
                            await desk.subject.commit(connection)
                    else:
                        connection = await manager.acquire_master()
                        await desk.insert(connection, item)
                        await desk.subject.commit(connection)
                        await manager.release(connection)
                    assert session.position is not None, "what was written has a position"
                    assert await _is_seen(manager, item), "a read sees what was written before it"
            await desk.all_slots_are_free(manager)

    @in_own_loop
    async def test_a_position_covers_what_was_committed(self, desk: Desk[PoolT, ConnT]) -> None:
        """Asked for within a transaction, it leaves that as it was."""
        async with desk.manager() as manager:
            await manager.ready(1, 2)
            async with manager.acquire_master() as connection:
                await desk.insert(connection, "first")
                within = await manager.wal_position(connection)
                await desk.insert(connection, "second")
                await desk.subject.commit(connection)
                position = await manager.wal_position(connection)
            assert desk.has("first"), "fetch_scalar ended the user's transaction"
            assert desk.has("second"), "fetch_scalar ended the user's transaction"
            assert within < position, "a commit moves the log on"
            for after in (position, str(position)):
                assert await _is_seen(manager, "second", after), (
                    "a read sees what its position covers"
                )

    @in_own_loop
    async def test_a_bound_that_nobody_keeps_is_told(self, desk: Desk[PoolT, ConnT]) -> None:
        async with desk.manager() as manager:
            await manager.ready(1, 2)
            async with manager.acquire_master() as connection:
                position = await manager.wal_position(connection)
            later = WalPosition(position.system_identifier, position.timeline, 2**60)
            with pytest.raises(AcquireTimeoutError, match="not behind a write of its own"):
                await manager.acquire_replica(after=later, timeout=0.2)
            async with manager.acquire_replica(True, after=later) as connection:
                server = await desk.server_of(manager, connection)
            assert server == desk.cluster.primary.name, "the master has all"
            async with manager.acquire_replica(max_lag=SOON) as connection:
                server = await desk.server_of(manager, connection)
            assert server != desk.cluster.primary.name, "a replica keeps a bound that is wide"
            await desk.all_slots_are_free(manager)

    @in_own_loop
    async def test_a_master_that_freezes_while_it_is_asked_holds_nobody_up(
        self, broken_desk: Desk[PoolT, ConnT]
    ) -> None:
        desk = broken_desk
        async with desk.manager(refresh_timeout=0.5) as manager:
            await manager.ready(1, 2)
            with manager.causal() as session:
                connection = await manager.acquire_master()
                before = session.since
                await asyncio.to_thread(desk.cluster.freeze, desk.cluster.primary)
                releasing = asyncio.ensure_future(manager.release(connection))
                done, _ = await asyncio.wait([releasing], timeout=SOON)
                assert done, "a release ends, though the server does not answer"
                releasing.exception()
                assert session.since > before, "what may have been committed is waited for"


async def _is_seen(
    manager: BasePoolManager[PoolT, ConnT], item: str, after: WalPosition | str | None = None
) -> bool:
    async with manager.acquire_replica(after=after) as connection:
        query = f"SELECT count(*)::text FROM surface WHERE item = '{item}'"
        return str(await manager.adapter.fetch_scalar(connection, query)) == "1"
