"""What users of a manager have of it: hosts stay in service, and errors are whose they are."""

import asyncio
import random
import time
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import Pool
from tests.adapters.on_sqlalchemy.support import free
from tests.support.waiting import PATIENCE

from pyscopg2.sqlalchemy import PoolManager, SqlalchemyAdapter
from pyscopg2.testing.cluster import LocalCluster

from .support import MakeManager, all_can_be_taken, end_backends, insert, notes, scalar

tenant: ContextVar[str] = ContextVar("tenant")


async def ask(manager: PoolManager) -> None:
    async with manager.acquire_master() as connection:
        assert await scalar(connection, "SELECT 1") == 1


@pytest.mark.parametrize("on_the_class", [False, True], ids=["pool_events", "class"])
async def test_a_hosts_checks_are_no_requests(
    make_manager: MakeManager, on_the_class: bool
) -> None:
    """A listener that looks up the request's tenant is not asked for one by a monitor, and where
    there is none its error reaches who asked, at once."""

    def checkout(*_: object) -> None:
        tenant.get()

    options: dict[str, Any] = {}
    if on_the_class:
        event.listen(Pool, "checkout", checkout)
    else:
        options["pool_events"] = [(checkout, "checkout")]
    try:
        manager = make_manager(refresh_delay=0.05, pool_factory_kwargs=options)
        await manager.ready(1, 1)
        await manager.wait_next_pool_check()
        with pytest.raises(LookupError):
            await ask(manager)
        assert manager.master_pool_count == manager.replica_pool_count == 1
        tenant.set("a tenant")
        await ask(manager)
    finally:
        if on_the_class:
            event.remove(Pool, "checkout", checkout)


async def test_all_sessions_are_ended_and_all_is_served_at_once(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    """`pg_terminate_backend` for all of a role: at most one error for each that was out."""
    options = {"pool_size": 8, "max_overflow": 0}
    manager = make_manager(cluster.primary.dsn, pool_factory_kwargs=options)
    (pool,) = await manager.get_master_pools()
    lost: list[AsyncConnection] = []
    held = [await manager.acquire_master() for _ in range(8)]
    for connection in held[2:]:
        await manager.release(connection)
    lost = held[:2]
    await end_backends(cluster, cluster.primary)
    for connection in lost:
        with pytest.raises(DBAPIError):
            await scalar(connection, "SELECT 1")
        await manager.release(connection)
    for _ in range(8):
        await ask(manager)
        assert manager.pools == (pool,), "the host was never out of service"
    adapter = manager.adapter
    assert isinstance(adapter, SqlalchemyAdapter)
    await all_can_be_taken(adapter, pool)


async def test_sessions_that_end_when_they_are_idle_cost_nothing(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager(
        cluster.primary.dsn,
        "&options=-c%20idle_session_timeout%3D100ms",
        refresh_delay=0.2,
        pool_factory_kwargs={"pool_size": 4, "max_overflow": 0},
    )
    (pool,) = await manager.get_master_pools()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        connections = [await manager.acquire_master() for _ in range(4)]
        for connection in connections:
            await manager.release(connection)
        await manager.wait_next_pool_check()
        assert manager.pools == (pool,), "the host was never out of service"
        await asyncio.sleep(0.2)  # longer than sessions may be idle


async def test_a_second_release_is_told(make_manager: MakeManager, cluster: LocalCluster) -> None:
    manager = make_manager(
        cluster.primary.dsn, pool_factory_kwargs={"pool_size": 1, "max_overflow": 0}
    )
    connection = await manager.acquire_master()
    await manager.release(connection)
    with pytest.raises(ValueError, match="given back"):
        await manager.release(connection)
    async with manager.acquire_master() as other:
        await insert(other, "kept")
        with pytest.raises(ValueError, match="given back"):
            await manager.release(connection)
        await other.commit()
    closed = await manager.acquire_master()
    await closed.close()
    await manager.release(closed)
    assert notes(cluster) == ["kept"]
    await ask(manager)


async def test_requests_that_time_out_lose_no_slot(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    """As frameworks cancel: at every await, until the scope is left."""
    options = {"pool_size": 3, "max_overflow": 0}
    manager = make_manager(cluster.primary.dsn, pool_factory_kwargs=options)
    (pool,) = await manager.get_master_pools()
    dice = random.Random(1)
    todo = iter(range(600))

    async def worker() -> None:
        for _ in todo:
            with anyio.move_on_after(dice.random() * 0.02):
                async with manager.acquire_master() as connection:
                    await scalar(connection, "SELECT 1")
                    await insert(connection, "never committed")

    async with asyncio.timeout(10 * PATIENCE):
        await asyncio.gather(*(worker() for _ in range(8)))
        adapter = manager.adapter
        assert isinstance(adapter, SqlalchemyAdapter)
        assert manager.get_pool_freesize(pool) == free(pool) == 3
        held = [await manager.acquire_master() for _ in range(3)]
        for connection in held:
            await manager.release(connection)
    assert notes(cluster) == []


async def test_a_default_of_serializable_needs_another_level_on_replicas(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    """SQLAlchemy itself asks a standby something when it connects, which refuses that level."""
    manager = make_manager(
        params="&options=-c%20default_transaction_isolation%3Dserializable",
        pool_factory_kwargs={"isolation_level": "READ COMMITTED"},
    )
    await manager.ready(1, 1)
    async with manager.acquire_replica() as connection:
        assert await scalar(connection, "SELECT pg_is_in_recovery()") is True
