"""Hosts that die, freeze, are promoted, return: what a manager makes of it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

import pytest
import uvloop
from tests.support.waiting import eventually

from pyscopg2.asyncpg import PoolManager
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.topology import Role
from pyscopg2.testing.cluster import LocalCluster, Node

from .support import (
    BROKEN,
    MakeManager,
    as_application,
    fetchval,
    pool_of,
    reader,
    role_becomes,
    role_of,
    server_of,
    tasks_end,
    write,
    writer,
    writes_on,
)


@contextlib.asynccontextmanager
async def writers(manager: PoolManager, count: int = 3) -> AsyncGenerator[list[tuple[float, str]]]:
    """Tasks that write without a pause; a list of when and where, which grows meanwhile.

    When is the moment at which the connection was handed out. Errors of the connection or the
    manager are what a failover costs; any other one fails the test.
    """
    written: list[tuple[float, str]] = []
    loop = asyncio.get_running_loop()

    async def run() -> None:
        while True:
            try:
                async with manager.acquire_master() as connection:
                    began = loop.time()
                    written.append((began, await write(connection)))
            except BROKEN:
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run()) for _ in range(count)]
        yield written
        for task in tasks:
            task.cancel()


async def writes_arrive(written: list[tuple[float, str]], node: Node, count: int = 20) -> None:
    """Wait for so many more writes, of which some go to this node."""
    start = len(written)
    await eventually(
        lambda: len(written) >= start + count and node.name in {name for _, name in written[start:]}
    )


async def test_a_replica_that_is_down_at_the_start_costs_nobody_anything(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    up, down = breakable_cluster.replicas
    await asyncio.to_thread(breakable_cluster.kill, down)
    manager = make_manager(acquire_timeout=10)
    assert await writer(manager) == breakable_cluster.primary.name
    assert {await reader(manager) for _ in range(10)} == {up.name}
    assert role_of(manager, down) is Role.UNAVAILABLE
    assert "ConnectionRefusedError" in str(manager.topology[down.address])

    await asyncio.to_thread(breakable_cluster.start, down)
    await role_becomes(manager, down, Role.REPLICA)
    async with manager.acquire_from_pool(pool_of(manager, down)) as connection:
        assert await server_of(connection) == down.name


async def test_a_primary_that_is_down_at_the_start_stops_no_reads(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    primary = breakable_cluster.primary
    await asyncio.to_thread(breakable_cluster.kill, primary)
    manager = make_manager()
    assert await reader(manager) in {node.name for node in breakable_cluster.replicas}
    with pytest.raises(AcquireTimeoutError, match=f"{primary.address} unavailable"):
        await manager.acquire_master(timeout=0.3)

    waiting = asyncio.create_task(writer(manager))
    await asyncio.to_thread(breakable_cluster.start, primary)
    assert await waiting == primary.name


async def test_after_a_kill_and_a_promotion_writes_go_on_and_reads_never_stop(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    old = breakable_cluster.primary
    new, other = breakable_cluster.replicas
    manager = make_manager()
    await manager.ready()
    loop = asyncio.get_running_loop()
    async with writers(manager) as written:
        await writes_arrive(written, old)
        await asyncio.to_thread(breakable_cluster.kill, old)
        await role_becomes(manager, old, Role.UNAVAILABLE)
        assert {await reader(manager) for _ in range(20)} <= {new.name, other.name}
        await asyncio.to_thread(breakable_cluster.promote, new)
        promoted = loop.time()
        await writes_arrive(written, new)
        outage = next(when for when, name in written if name == new.name) - promoted
    assert outage < 2
    assert manager.pool_is_master(pool_of(manager, new))
    await role_becomes(manager, other, Role.REPLICA)
    assert {await reader(manager) for _ in range(10)} == {other.name}

    await asyncio.to_thread(breakable_cluster.rejoin, old)
    await role_becomes(manager, old, Role.REPLICA)
    assert await writer(manager) == new.name


async def test_an_outage_is_one_line_in_the_log_and_its_end_another(
    breakable_cluster: LocalCluster, make_manager: MakeManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pyscopg2")
    down = breakable_cluster.replicas[0]
    manager = make_manager(refresh_delay=0.02)
    await manager.ready()
    caplog.clear()
    await asyncio.to_thread(breakable_cluster.kill, down)
    await role_becomes(manager, down, Role.UNAVAILABLE)
    for _ in range(5):
        await manager.wait_next_pool_check()
    await asyncio.to_thread(breakable_cluster.start, down)
    await role_becomes(manager, down, Role.REPLICA)
    lines = [record for record in caplog.records if record.name == "pyscopg2"]
    assert [line.levelname for line in lines] == ["WARNING", "INFO"]
    assert lines[0].getMessage().startswith(f"{down.address} unavailable (")
    assert lines[1].getMessage() == f"{down.address} replica (was unavailable)"
    assert not any(line.exc_info for line in lines)


async def test_a_reserved_connection_that_breaks_makes_a_check_happen_now(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    down = breakable_cluster.replicas[0]
    manager = make_manager(refresh_delay=60)
    await manager.ready()
    await asyncio.to_thread(breakable_cluster.kill, down)
    await role_becomes(manager, down, Role.UNAVAILABLE, timeout=2)


async def test_a_promoted_replica_keeps_its_pool_and_the_connections_that_are_out(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    new, _ = breakable_cluster.replicas
    manager = make_manager()
    await manager.ready()
    pool = pool_of(manager, new)
    async with manager.acquire_from_pool(pool) as connection:
        await asyncio.to_thread(breakable_cluster.kill, breakable_cluster.primary)
        await asyncio.to_thread(breakable_cluster.promote, new)
        await role_becomes(manager, new, Role.MASTER)
        assert await write(connection) == new.name
    assert pool_of(manager, new) is pool
    assert await manager.get_master_pools() == [pool]


@pytest.mark.parametrize("frozen", [False, True], ids=["alive", "frozen"])
async def test_an_old_master_gets_nothing_once_a_newer_timeline_is_seen(
    breakable_cluster: LocalCluster, make_manager: MakeManager, frozen: bool
) -> None:
    old = breakable_cluster.primary
    new, _ = breakable_cluster.replicas
    manager = make_manager(
        refresh_delay=0.2, refresh_timeout=0.5, pool_factory_kwargs={"max_size": 4}
    )
    await manager.ready()
    loop = asyncio.get_running_loop()
    held = await manager.acquire_master()
    asking = asyncio.create_task(held.fetchval("SELECT pg_sleep(600)"))
    async with writers(manager) as written:
        await writes_arrive(written, old)
        if frozen:
            await asyncio.to_thread(breakable_cluster.freeze, old)
        await asyncio.to_thread(breakable_cluster.promote, new)
        await role_becomes(manager, old, Role.SUPERSEDED)
        seen = loop.time()
        with pytest.raises(BROKEN):
            async with asyncio.timeout(5):
                await asking
        assert manager.is_connection_closed(held)
        assert f"{old.address} superseded by {new.address}" in str(manager.topology)
        if frozen:
            await asyncio.to_thread(breakable_cluster.thaw, old)
            before = len(written)
        else:
            before = await writes_on(old)
        await writes_arrive(written, new, 50)
        if not frozen:
            assert await writes_on(old) == before
        assert {name for when, name in written if when > seen} == {new.name}
        for _ in range(20):
            assert await reader(manager) != old.name
    await manager.release(held)
    assert role_of(manager, old) is Role.SUPERSEDED

    await asyncio.to_thread(breakable_cluster.rejoin, old)
    await role_becomes(manager, old, Role.REPLICA)
    async with manager.acquire_from_pool(pool_of(manager, old)) as connection:
        assert await server_of(connection) == old.name


async def test_without_fencing_both_masters_stay(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    old = breakable_cluster.primary
    new, _ = breakable_cluster.replicas
    manager = make_manager(fencing=False)
    await manager.ready()
    await asyncio.to_thread(breakable_cluster.promote, new)
    await manager.wait_masters_ready(2)
    assert role_of(manager, old) is role_of(manager, new) is Role.MASTER


async def test_a_primary_restarted_in_place_comes_back_with_a_new_pool(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    primary = breakable_cluster.primary
    manager = make_manager()
    await manager.ready()
    pool = pool_of(manager, primary)
    held = await manager.acquire_master()
    async with writers(manager, 1) as written:
        await writes_arrive(written, primary)
        await asyncio.to_thread(breakable_cluster.stop, primary)
        await role_becomes(manager, primary, Role.UNAVAILABLE)
        with pytest.raises(BROKEN):
            await held.fetchval("SELECT 1")
        await manager.release(held)
        await asyncio.to_thread(breakable_cluster.start, primary)
        await writes_arrive(written, primary)
    assert pool_of(manager, primary) is not pool
    with pytest.raises(ValueError, match="retired"):
        manager.get_pool_freesize(pool)
    await eventually(pool.is_closing, "the old pool is closed")


async def test_a_frozen_replica_costs_reads_less_than_their_deadline(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    frozen, well = breakable_cluster.replicas
    manager = make_manager(refresh_timeout=0.5, abandon_timeout=1.5)
    await manager.ready()
    loop = asyncio.get_running_loop()
    held = await manager.acquire_from_pool(pool_of(manager, frozen))
    await asyncio.to_thread(breakable_cluster.freeze, frozen)
    froze = loop.time()
    asking = asyncio.create_task(held.fetchval("SELECT 1"))

    for _ in range(30):
        async with manager.acquire_replica(timeout=3) as connection:
            with contextlib.suppress(*BROKEN, TimeoutError):
                async with asyncio.timeout(0.2):
                    await server_of(connection)
    await role_becomes(manager, frozen, Role.UNAVAILABLE)
    assert {await reader(manager, timeout=1) for _ in range(10)} == {well.name}

    with pytest.raises(BROKEN):
        await asking
    assert 1 < loop.time() - froze < 10
    await manager.release(held)

    await asyncio.to_thread(breakable_cluster.thaw, frozen)
    await role_becomes(manager, frozen, Role.REPLICA)
    async with manager.acquire_from_pool(pool_of(manager, frozen)) as connection:
        assert await server_of(connection) == frozen.name


async def test_a_frozen_primary_that_thaws_is_the_master_again(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    primary = breakable_cluster.primary
    manager = make_manager(refresh_delay=0.2, refresh_timeout=0.5)
    await manager.ready()
    await asyncio.to_thread(breakable_cluster.freeze, primary)
    await role_becomes(manager, primary, Role.UNAVAILABLE)
    with pytest.raises(AcquireTimeoutError, match="no answer within"):
        await manager.acquire_master(timeout=0.1)
    await asyncio.to_thread(breakable_cluster.thaw, primary)
    assert await writer(manager) == primary.name


async def test_a_primary_that_is_set_read_only_serves_reads_and_no_writes(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    primary = breakable_cluster.primary
    manager = make_manager(refresh_delay=0.2)
    await manager.ready()

    def set_read_only(setting: str) -> None:
        breakable_cluster.psql(
            primary,
            f"ALTER SYSTEM SET default_transaction_read_only = {setting}; SELECT pg_reload_conf()",
        )

    await asyncio.to_thread(set_read_only, "on")
    await role_becomes(manager, primary, Role.REPLICA)
    assert manager.master_pool_count == 0
    with pytest.raises(AcquireTimeoutError):
        await manager.acquire_master(timeout=0.3)
    async with manager.acquire_from_pool(pool_of(manager, primary)) as connection:
        assert await server_of(connection) == primary.name
    assert primary.name in {await reader(manager) for _ in range(60)}

    await asyncio.to_thread(set_read_only, "off")
    await role_becomes(manager, primary, Role.MASTER)
    assert await writer(manager) == primary.name


async def test_a_write_refused_as_read_only_makes_a_check_happen_now(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    primary = breakable_cluster.primary
    manager = make_manager(refresh_delay=600)
    await manager.ready()
    sql = "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()"
    await asyncio.to_thread(breakable_cluster.psql, primary, sql)

    async def is_read_only() -> bool:
        return str(await fetchval(primary, "SHOW transaction_read_only")) == "on"

    await eventually(is_read_only)
    with pytest.raises(BROKEN, match="read-only transaction"):
        while True:
            await writer(manager, timeout=5)
    await role_becomes(manager, primary, Role.REPLICA)


async def test_a_host_that_returns_as_a_replica_is_no_master_any_more(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    old = breakable_cluster.primary
    new, _ = breakable_cluster.replicas
    manager = make_manager(refresh_delay=0.1)
    await manager.ready()
    pool = pool_of(manager, old)
    await asyncio.to_thread(breakable_cluster.promote, new)
    await asyncio.to_thread(breakable_cluster.rejoin, old)
    await role_becomes(manager, old, Role.REPLICA)
    await role_becomes(manager, new, Role.MASTER)
    assert pool_of(manager, old) is not pool
    assert await writer(manager) == new.name


def test_a_failover_under_uvloop(breakable_cluster: LocalCluster) -> None:
    old = breakable_cluster.primary
    new, _ = breakable_cluster.replicas

    async def fail_over() -> None:
        async with PoolManager(
            as_application(breakable_cluster.dsn),
            acquire_timeout=20,
            pool_factory_kwargs={"min_size": 0, "max_size": 2},
        ) as manager:
            async with writers(manager) as written:
                await writes_arrive(written, old)
                await asyncio.to_thread(breakable_cluster.kill, old)
                await asyncio.to_thread(breakable_cluster.promote, new)
                await writes_arrive(written, new)
            assert await reader(manager) != new.name
        await tasks_end()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(fail_over())
