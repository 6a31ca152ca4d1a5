"""The part of `pyscopg2.testing.manager_contract` on hosts that go and come."""

import asyncio
import time
from typing import Generic

import pytest

from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.topology import Role
from pyscopg2.testing.bench import PATIENCE, SOON
from pyscopg2.testing.contracts.healing import heal
from pyscopg2.testing.contracts.manager.desk import Desk
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("OutageContract",)

WITHIN = 1.0
"""Seconds from a new master's accepting writes until writes go through again."""

OUTAGE = 2.0
"""Seconds that a restarted host is down: enough for a driver's own intervals to grow."""


class OutageContract(Generic[PoolT, ConnT]):
    """A part of `ManagerContract`."""

    @in_own_loop
    async def test_writes_go_through_within_a_second_of_a_promotion(
        self, broken_desk: Desk[PoolT, ConnT]
    ) -> None:
        desk = broken_desk

        async def fail_over(manager: BasePoolManager[PoolT, ConnT]) -> float:
            old, new = desk.cluster.primary, desk.cluster.replicas[0]
            assert await desk.writer(manager) == old.name, "a write goes to the master"
            await asyncio.to_thread(desk.cluster.kill, old)
            return await desk.outage(manager, new, lambda: desk.cluster.promote(new))

        # The regular checks are no help here.
        async with desk.manager(refresh_delay=PATIENCE, refresh_timeout=1.0) as manager:
            outages = [await fail_over(manager)]
            # Nobody's fault on a machine that does other things, too: never thrice, though.
            while outages[-1] > WITHIN and len(outages) < 3:
                await asyncio.to_thread(heal, desk.cluster)
                await manager.ready(1, 2, PATIENCE)
                outages.append(await fail_over(manager))
            assert min(outages) <= WITHIN, outages
            assert desk.has("written"), "what was acknowledged is written"

    @in_own_loop
    async def test_writes_go_through_within_a_second_of_a_restart_and_on_a_new_pool(
        self, broken_desk: Desk[PoolT, ConnT]
    ) -> None:
        desk = broken_desk
        primary = desk.cluster.primary

        def restart() -> None:
            time.sleep(OUTAGE)
            desk.cluster.start(primary)

        async with desk.manager(refresh_delay=PATIENCE, refresh_timeout=1.0) as manager:
            outages: list[float] = []
            while not outages or (outages[-1] > WITHIN and len(outages) < 3):
                await manager.ready(1, 2, PATIENCE)
                pool, held = desk.pool_of(manager, primary), await manager.acquire()
                await asyncio.to_thread(desk.cluster.kill, primary)
                outages.append(await desk.outage(manager, primary, restart))
                assert desk.pool_of(manager, primary) is not pool, (
                    "a host that comes back has a new pool"
                )
                desk.refuses(manager, pool)
                with pytest.raises(desk.subject.errors):
                    await desk.insert(held, "lost")
                assert manager.is_connection_closed(held), (
                    "is_connection_closed() of a connection to a host that was killed"
                )
                await manager.release(held)
            assert min(outages) <= WITHIN, outages

    @in_own_loop
    async def test_a_promotion_keeps_a_pool_and_retires_the_superseded_one(
        self, broken_desk: Desk[PoolT, ConnT]
    ) -> None:
        desk = broken_desk
        desk.needs("terminates_queries")
        old, new = desk.cluster.primary, desk.cluster.replicas[0]
        async with desk.manager() as manager:
            kept, retired = desk.pool_of(manager, new), desk.pool_of(manager, old)
            ours = await manager.acquire_from_pool(kept)
            idle, busy = [await manager.acquire() for _ in range(2)]
            query = desk.start_sleeping(busy)
            await desk.sleeps()
            await asyncio.to_thread(desk.cluster.promote, new)
            await desk.becomes(manager, old, Role.SUPERSEDED)
            await desk.becomes(manager, new, Role.MASTER)

            assert await manager.get_master_pools() == [kept], "the new master keeps its pool"
            assert not manager.is_connection_closed(ours), (
                "a promotion has cut off a connection to the new master"
            )
            await desk.insert(ours, "kept")
            await desk.subject.commit(ours)
            await manager.release(ours)
            assert desk.has("kept"), "what was committed on the new master is there"
            assert {await desk.writer(manager) for _ in range(5)} == {new.name}, (
                "writes go to the new master"
            )

            async with asyncio.timeout(SOON):
                with pytest.raises(desk.subject.errors):
                    await query
            for lost in (idle, busy):
                assert manager.is_connection_closed(lost), (
                    "is_connection_closed() of what was terminated"
                )
                await manager.release(lost)
            # It is retired by the next check of its host, which comes at once.
            await desk.until(lambda: not desk.knows(manager, retired), "the pool is retired")
            desk.refuses(manager, retired)
            assert old.name not in {await desk.reader(manager) for _ in range(5)}, (
                "a read went to a superseded master"
            )

            await asyncio.to_thread(desk.cluster.rejoin, old)
            await desk.becomes(manager, old, Role.REPLICA)
            again = desk.pool_of(manager, old)
            assert again is not retired, "a host that comes back has a new pool"
            async with manager.acquire_from_pool(again) as connection:
                assert await desk.server_of(manager, connection) == old.name, (
                    "a connection of another pool"
                )

    @in_own_loop
    async def test_a_retired_pool_ends_with_its_last_checkout(
        self, broken_desk: Desk[PoolT, ConnT]
    ) -> None:
        desk = broken_desk
        primary = desk.cluster.primary
        async with desk.manager(
            refresh_delay=0.2, refresh_timeout=0.3, abandon_timeout=PATIENCE
        ) as manager:
            pool, held = desk.pool_of(manager, primary), await manager.acquire()
            pid = await desk.pid_of(manager, held)
            await asyncio.to_thread(desk.cluster.freeze, primary)
            await desk.becomes(manager, primary, Role.UNAVAILABLE)
            desk.refuses(manager, pool)
            await asyncio.to_thread(desk.cluster.thaw, primary)
            await desk.becomes(manager, primary, Role.MASTER)
            assert desk.pool_of(manager, primary) is not pool, (
                "a host that comes back has a new pool"
            )
            # What was out goes on; nothing else comes from that pool.
            assert await desk.pid_of(manager, held) == pid, "what was out of a retired pool goes on"
            async with manager.acquire() as other:
                assert await desk.pid_of(manager, other) != pid, (
                    "a retired pool handed something out"
                )
            await manager.release(held)

            async def is_gone() -> bool:
                return pid not in await desk.backends()

            await desk.until(is_gone, "the retired pool is closed")
            assert await desk.writer(manager) == primary.name, "writes go to the master"

    @in_own_loop
    async def test_a_frozen_host_hangs_nobody(self, broken_desk: Desk[PoolT, ConnT]) -> None:
        desk = broken_desk
        desk.needs("terminates_queries")
        frozen = desk.cluster.primary
        replicas = {node.name for node in desk.cluster.replicas}
        async with desk.manager(
            refresh_delay=0.2, refresh_timeout=0.3, abandon_timeout=0.6
        ) as manager:
            ending = manager.acquire()
            await desk.insert(await ending.__aenter__(), "frozen")
            asking = await manager.acquire()
            query = desk.start_sleeping(asking)
            await desk.sleeps()
            await asyncio.to_thread(desk.cluster.freeze, frozen)
            async with asyncio.timeout(SOON):
                connecting = asyncio.ensure_future(desk.writer(manager, timeout=0.3))
                try:
                    await ending.__aexit__(None, None, None)
                except desk.subject.errors:
                    pass
                else:
                    assert not desk.subject.driver.commits, (
                        "the end of a block looks committed on a frozen host"
                    )
                with pytest.raises((AcquireTimeoutError, *desk.subject.errors)):
                    await connecting
                with pytest.raises(desk.subject.errors):
                    await query
            await manager.release(asking)
            await desk.becomes(manager, frozen, Role.UNAVAILABLE)
            assert {await desk.reader(manager) for _ in range(5)} <= replicas, (
                "a read went to a frozen host"
            )
            await asyncio.to_thread(desk.cluster.thaw, frozen)
            assert await desk.writer(manager) == frozen.name, (
                "writes go to the master that goes on again"
            )

    @in_own_loop
    async def test_close_is_bounded_with_a_frozen_host_and_connections_out(
        self, broken_desk: Desk[PoolT, ConnT]
    ) -> None:
        desk = broken_desk
        desk.needs("terminates_queries")
        async with desk.manager(refresh_timeout=1.0) as manager:
            held = await desk.hold_all(manager, desk.cluster.primary)
            await asyncio.to_thread(desk.cluster.freeze, desk.cluster.primary)
            query = desk.start_sleeping(held[0])
            await asyncio.sleep(0)
            async with asyncio.timeout(SOON):
                await manager.close(timeout=0.05)
                with pytest.raises(desk.subject.errors):
                    await query
            await desk.release_all(manager, held)
