"""Single things that go wrong: broken connections, a stalled loop, full pools, cancellation."""

import asyncio
import contextlib
import random
import time
from collections import Counter

import pytest
from tests.support.waiting import eventually

from pyscopg2.asyncpg import PoolManager
from pyscopg2.balancer_policy import RoundRobinBalancerPolicy
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.topology import Role
from pyscopg2.testing.cluster import LocalCluster, Node

from .support import (
    BROKEN,
    RESERVED,
    Connection,
    MakeManager,
    backends,
    connected,
    hold_all,
    pool_of,
    release_all,
    role_becomes,
    role_of,
    server_of,
    tasks_end,
)


async def reserved_backend(node: Node) -> int:
    """The process of the one connection that the monitor keeps."""
    (row,) = await backends(node, RESERVED)
    return int(row["pid"])


async def terminate_backend(node: Node, pid: int) -> None:
    async with connected(node) as connection:
        assert await connection.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)


async def all_slots_are_free(manager: PoolManager, size: int) -> None:
    await eventually(
        lambda: all(manager.get_pool_freesize(pool) == size for pool in manager.pools),
        f"every slot is free: {[manager.get_pool_freesize(pool) for pool in manager.pools]}",
    )


async def is_asking(node: Node, query: str) -> None:
    """Wait until the server works on a query."""

    async def active() -> bool:
        return bool(await backends(node, f"state = 'active' AND query = '{query}'"))

    await eventually(active, f"{node!r} works on {query!r}")


# The reserved connection


async def test_a_full_pool_is_still_known_as_master_while_its_reserved_connection_is_killed(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    primary = cluster.primary
    manager = make_manager(refresh_delay=0.1)
    await manager.ready()
    seen: set[Role] = set()
    held = await hold_all(manager, primary)
    pool = pool_of(manager, primary)
    assert manager.get_pool_freesize(pool) == 0
    watching = asyncio.create_task(watch_role(manager, primary, seen))
    for _ in range(3):
        before = await reserved_backend(primary)
        await terminate_backend(primary, before)
        await manager.wait_next_pool_check()
        assert await reserved_backend(primary) != before
        assert manager.pool_is_master(pool)
    watching.cancel()
    assert seen == {Role.MASTER}
    assert len(await backends(primary)) == 3
    for connection in held:
        assert await server_of(connection) == primary.name
    await release_all(manager, held)


async def watch_role(manager: PoolManager, node: Node, seen: set[Role]) -> None:
    while True:
        seen.add(role_of(manager, node))
        await asyncio.sleep(0)


async def test_a_monitor_gets_its_connection_back_where_many_wait_for_a_full_pool(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager(refresh_delay=0.1)
    await manager.ready()
    pool = pool_of(manager, cluster.primary)
    held = await hold_all(manager, cluster.primary)
    waiting = [asyncio.create_task(server_of_a_master(manager)) for _ in range(20)]
    await terminate_backend(cluster.primary, await reserved_backend(cluster.primary))
    await manager.wait_next_pool_check()
    await release_all(manager, held)
    assert set(await asyncio.gather(*waiting)) == {cluster.primary.name}
    assert pool_of(manager, cluster.primary) is pool


async def server_of_a_master(manager: PoolManager) -> str:
    async with manager.acquire() as connection:
        return await server_of(connection)


async def test_a_user_connection_that_is_killed_costs_its_user_one_error(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    await manager.ready()
    pool = pool_of(manager, cluster.primary)
    connection = await manager.acquire()
    await terminate_backend(cluster.primary, connection.get_server_pid())
    with pytest.raises(BROKEN):
        await connection.fetchval("SELECT 1")
    await manager.release(connection)
    assert await server_of_a_master(manager) == cluster.primary.name
    assert pool_of(manager, cluster.primary) is pool
    assert manager.get_pool_freesize(pool) == 2


# Our own event loop


async def test_blocking_the_loop_for_two_seconds_costs_no_host_its_place(
    make_manager: MakeManager, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make_manager(refresh_delay=0.05, refresh_timeout=1)
    await manager.ready()
    before = manager.pools
    # In the middle of checks: their answers wait in the sockets.
    checking = asyncio.create_task(manager.wait_next_pool_check())
    await asyncio.sleep(0.06)
    time.sleep(2)
    await checking
    await manager.wait_next_pool_check()
    assert manager.pools == before
    assert caplog.messages == []


# Full pools


async def test_who_waits_gets_the_slot_that_frees_first_on_any_host(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    await manager.ready()
    for node in cluster.replicas:
        held = await hold_all(manager, *cluster.replicas)
        waiting = asyncio.create_task(server_of_a_replica(manager))
        await asyncio.sleep(0)  # its first step ends in the line
        assert not waiting.done()
        # `hold_all` took two of each host.
        freed = held.pop(0 if node is cluster.replicas[0] else -1)
        assert await server_of(freed) == node.name
        await manager.release(freed)
        assert await waiting == node.name
        await release_all(manager, held)


async def server_of_a_replica(manager: PoolManager) -> str:
    async with manager.acquire_replica() as connection:
        return await server_of(connection)


async def test_out_of_time_the_error_shows_each_hosts_state(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    await manager.ready()
    held = await hold_all(manager, cluster.primary)
    began = time.monotonic()
    with pytest.raises(AcquireTimeoutError) as caught:
        await manager.acquire(timeout=0.3)
    assert 0.25 < time.monotonic() - began < 2
    assert isinstance(caught.value, TimeoutError)
    for node in cluster.nodes:
        role = "master" if node is cluster.primary else "replica"
        assert f"{node.address} {role}" in str(caught.value)
    await release_all(manager, held)


@pytest.mark.parametrize("block", [False, True], ids=["release", "block"])
async def test_giving_back_on_a_frozen_host_is_bounded(
    breakable_cluster: LocalCluster, make_manager: MakeManager, block: bool
) -> None:
    frozen = breakable_cluster.primary
    manager = make_manager(refresh_delay=60, refresh_timeout=0.5, abandon_timeout=60)
    await manager.ready()
    if block:
        acquiring = manager.acquire()
        await acquiring.__aenter__()
        releasing = acquiring.__aexit__(None, None, None)
    else:
        releasing = manager.release(await manager.acquire())
    await asyncio.to_thread(breakable_cluster.freeze, frozen)
    began = time.monotonic()
    with contextlib.suppress(*BROKEN):
        await releasing
    assert time.monotonic() - began < 5


async def test_a_read_that_connects_to_a_frozen_replica_goes_elsewhere_in_time(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    frozen, well = breakable_cluster.replicas
    manager = make_manager(
        acquire_timeout=1, refresh_timeout=2, balancer_policy=RoundRobinBalancerPolicy
    )
    await manager.ready()
    await asyncio.to_thread(breakable_cluster.freeze, frozen)
    assert await server_of_a_replica(manager) == well.name
    assert await server_of_a_replica(manager) == well.name


# Cancellation


async def test_cancelled_queries_leave_their_slots_free(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    await manager.ready()
    query = "SELECT pg_sleep(600)"
    for _ in range(3):
        asking = asyncio.create_task(ask(manager, query))
        await is_asking(cluster.primary, query)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await all_slots_are_free(manager, 2)
    assert await server_of_a_master(manager) == cluster.primary.name


async def ask(manager: PoolManager, query: str) -> None:
    async with manager.acquire() as connection:
        await connection.execute(query)


async def test_who_is_cancelled_in_the_line_leaves_it(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    await manager.ready()
    held = await hold_all(manager, cluster.primary)
    waiting = [asyncio.create_task(server_of_a_master(manager)) for _ in range(6)]
    await asyncio.sleep(0)  # the first step of each ends in the line
    for task in waiting[::2]:
        task.cancel()
    for connection in held:
        # In the very turn in which others are cancelled.
        await manager.release(connection)
        waiting[1].cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    kinds = Counter(type(result) for result in results)
    assert kinds[asyncio.CancelledError] in (3, 4)
    assert kinds[str] == 6 - kinds[asyncio.CancelledError]
    await all_slots_are_free(manager, 2)


@pytest.mark.parametrize("seed", range(3))
async def test_random_cancellations_under_load_leave_nothing_behind(
    make_manager: MakeManager, cluster: LocalCluster, seed: int
) -> None:
    """Cancelled while it waits in the line, connects, asks, sleeps or gives back."""
    dice = random.Random(seed)
    size = 4
    manager = make_manager(pool_factory_kwargs={"max_size": size})
    await manager.ready()
    outcomes = Counter[str]()

    async def use_awaited(read_only: bool) -> None:
        connection = await manager.acquire(read_only)
        try:
            await use(connection)
        finally:
            await manager.release(connection)

    async def use_block(read_only: bool) -> None:
        async with manager.acquire(read_only) as connection:
            await use(connection)

    async def use(connection: Connection) -> None:
        async with connection.transaction():
            await connection.fetchval("SELECT pg_sleep(0.002)")
        await asyncio.sleep(0)

    async def cancelled_at_random() -> None:
        work = dice.choice([use_awaited, use_block])(dice.random() < 0.5)
        task = asyncio.create_task(work)
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        await asyncio.sleep(dice.choice([0, 0, 0.001, 0.004, 0.02, 0.05]) * dice.random())
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            outcomes["cancelled"] += 1
        else:
            outcomes["done"] += 1

    async def worker() -> None:
        for _ in range(10):
            await cancelled_at_random()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(15):
            group.create_task(worker())
    assert outcomes["cancelled"] > 50
    await all_slots_are_free(manager, size)
    for node in cluster.nodes:
        assert len(await backends(node)) <= size + 1

        async def all_idle(node: Node = node) -> bool:
            return not await backends(node, "state <> 'idle'")

        await eventually(all_idle, "no backend is in a transaction")
    for node in cluster.nodes:
        held = await hold_all(manager, node)
        assert len(held) == size
        assert {await server_of(connection) for connection in held} == {node.name}
        await release_all(manager, held)
    await manager.close()
    await tasks_end()


async def test_a_frozen_host_keeps_no_cancelled_task(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    frozen = breakable_cluster.primary
    manager = make_manager(refresh_timeout=0.5, abandon_timeout=0.5)
    await manager.ready()
    query = "SELECT pg_sleep(600)"
    asking = asyncio.create_task(ask(manager, query))
    await is_asking(frozen, query)
    await asyncio.to_thread(breakable_cluster.freeze, frozen)
    connecting = asyncio.create_task(server_of_a_master(manager))
    pool = pool_of(manager, frozen)
    await eventually(lambda: manager.get_pool_freesize(pool) == 0, "it has a slot to connect on")
    began = time.monotonic()
    asking.cancel()
    connecting.cancel()
    results = await asyncio.gather(asking, connecting, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError | Exception) for result in results)
    assert time.monotonic() - began < 5
    await role_becomes(manager, frozen, Role.UNAVAILABLE)
