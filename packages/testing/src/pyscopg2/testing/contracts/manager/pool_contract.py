"""The part of `pyscopg2.testing.manager_contract` on pools, and what is known of them."""

import asyncio
import time
from typing import Generic

import pytest

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.testing.bench import PATIENCE, SOON
from pyscopg2.testing.contracts.manager.desk import SIZE, Desk
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("PoolContract",)


class PoolContract(Generic[PoolT, ConnT]):
    """A part of `ManagerContract`."""

    @in_own_loop
    async def test_pools_and_their_roles(self, desk: Desk[PoolT, ConnT]) -> None:
        async with desk.manager() as manager:
            master = desk.pool_of(manager, desk.cluster.primary)
            replicas = [desk.pool_of(manager, node) for node in desk.cluster.replicas]
            everyone = tuple(desk.pool_of(manager, node) for node in desk.cluster.nodes)
            assert await manager.get_master_pools() == [master], "the pools of masters"
            assert await manager.get_replica_pools() == replicas, "the pools of replicas"
            assert await manager.get_replica_pools(fallback_master=True) == replicas, (
                "the pools of replicas"
            )
            assert await manager.get_pool(False) is master, "the pool of the master"
            assert manager.pools == everyone, "all pools"
            assert manager.master_pool_count == 1, "how many masters"
            assert manager.replica_pool_count == 2, "how many replicas"
            assert manager.available_pool_count == 3, "how many pools"
            for pool in everyone:
                assert manager.pool_is_master(pool) is (pool is master), "the role of a pool"
                assert manager.pool_is_replica(pool) is (pool is not master), "the role of a pool"
                assert manager.get_pool_freesize(pool) == SIZE, "how many are free"
                median = manager.get_last_response_time(pool)
                assert median is not None, "the host was checked"
                assert 0 < median < SOON, "in seconds"
            for busy, idle in (replicas, reversed(replicas)):
                async with manager.acquire_from_pool(busy):
                    assert await manager.get_pool(read_only=True) is idle, (
                        "the pool with the most free connections"
                    )

    @in_own_loop
    async def test_get_pool_waits_for_one_and_falls_back_when_told(
        self, desk: Desk[PoolT, ConnT]
    ) -> None:
        async with desk.manager(desk.cluster.primary.dsn, ready=False) as manager:
            assert manager.pools == (), "a new manager has no pool"
            (master,) = await manager.get_master_pools()
            assert await manager.get_pool(True, True) is master, "fallback to the master"
            assert await manager.get_replica_pools(True) == [master], "fallback to the master"
            for waiting in (manager.get_pool(read_only=True), manager.get_replica_pools()):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(waiting, 0.02)

    @in_own_loop
    async def test_what_is_asked_of_another_managers_pool(self, desk: Desk[PoolT, ConnT]) -> None:
        async with desk.manager() as manager, desk.manager() as stranger:
            pool = await stranger.get_pool(read_only=False)
            async with stranger.acquire_from_pool(pool) as connection:
                desk.refuses(manager, pool, connection)

    @in_own_loop
    async def test_the_topology_and_the_dsn(self, desk: Desk[PoolT, ConnT]) -> None:
        async with desk.manager() as manager:
            hosts = [host.address for host in manager.topology]
            assert hosts == [node.address for node in desk.cluster.nodes], (
                "the hosts of the DSN, in its order"
            )
            for node in desk.cluster.nodes:
                role = "master" if node is desk.cluster.primary else "replica"
                assert str(manager.topology[node.address]) == f"{node.address} {role}", (
                    "what is said of a host"
                )
            assert manager.dsn == desk.dsn(), "the DSN as it was given"
            assert desk.cluster.password not in repr(manager) + repr(manager.topology), (
                "the password is shown"
            )

    @in_own_loop
    async def test_full_load_never_costs_a_host_its_place(self, desk: Desk[PoolT, ConnT]) -> None:
        async with desk.manager(refresh_delay=0.1) as manager:
            before = manager.pools
            held = await desk.hold_all(manager, desk.cluster.primary)
            assert len(held) == SIZE, "as many as users may have"
            waiting = asyncio.ensure_future(desk.writer(manager))
            for _ in range(2):
                await desk.end_process(await desk.pid_of_monitor(manager, held))
                await manager.wait_next_pool_check()
                assert manager.pools == before, "a full pool has cost its host its place"
            await desk.pid_of_monitor(manager, held)
            assert not waiting.done(), "more connections are out than users may have"
            await desk.release_all(manager, held)
            assert await waiting == desk.cluster.primary.name, "who waited gets a slot"

    @in_own_loop
    async def test_a_loss_between_two_checks_is_noticed(self, desk: Desk[PoolT, ConnT]) -> None:
        """Twenty times a second the monitor looks at its connection; no query is sent."""
        async with desk.manager(refresh_delay=PATIENCE) as manager:
            address = desk.cluster.primary.address
            held = await desk.hold_all(manager, desk.cluster.primary)
            for _ in range(2):
                before = manager.topology[address].serial
                await desk.end_process(await desk.pid_of_monitor(manager, held))
                until = time.monotonic() + SOON
                while manager.topology[address].serial == before:
                    assert time.monotonic() < until, (
                        "the server has ended the monitor's connection, and nobody saw it:"
                        " is_connection_closed(), or is_closed() of what is reserved, does not"
                        " look at the socket"
                    )
                    await asyncio.sleep(0.01)
            await desk.release_all(manager, held)
