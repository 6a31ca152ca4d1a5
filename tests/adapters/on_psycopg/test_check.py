"""Connections that died while idle, and the user's hook that looks at each before it is taken."""

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import psycopg_pool.pool_async
import pytest
from psycopg_pool import AsyncConnectionPool
from tests.adapters.on_psycopg.support import Connection, Pool, free, opened
from tests.support.waiting import PATIENCE, SOON

from pyscopg2.core.adapter import HookError
from pyscopg2.psycopg import PoolManager, PsycopgAdapter
from pyscopg2.psycopg.cutting import shut_down
from pyscopg2.testing.cluster import LocalCluster


@pytest.fixture(autouse=True)
def never_sleeps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Psycopg_pool does, from the second connection on that fails its check, before it looks at
    another one: for a second, then for two."""
    sleeps: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:
            sleeps.append(seconds)
        await asyncio.sleep(seconds)

    monkeypatch.setattr(psycopg_pool.pool_async, "asleep", sleep)
    yield
    assert not sleeps


async def end_backends(cluster: LocalCluster) -> None:
    sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    sql += " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    await asyncio.to_thread(cluster.psql, cluster.primary, sql)


async def take_all(adapter: PsycopgAdapter, pool: Pool) -> list[Connection]:
    async with asyncio.timeout(SOON):
        return [await adapter.acquire_from_pool(pool) for _ in range(pool.max_size)]


async def give_back(adapter: PsycopgAdapter, pool: Pool, taken: list[Connection]) -> None:
    for connection in taken:
        await adapter.release_to_pool(connection, pool)


@pytest.mark.parametrize("checked", [False, True], ids=["", "checked"])
async def test_the_dead_ones_are_gone_through_at_once(
    adapter: PsycopgAdapter, cluster: LocalCluster, checked: bool
) -> None:
    options: dict[str, Any] = {"min_size": 8, "max_size": 8}
    if checked:
        options["check"] = AsyncConnectionPool.check_connection
    async with opened(adapter, cluster.primary, **options) as pool:
        await give_back(adapter, pool, await take_all(adapter, pool))
        await end_backends(cluster)
        connection = await adapter.acquire_from_pool(pool)
        await connection.execute("SELECT 1")
        await connection.commit()
        await adapter.release_to_pool(connection, pool)
        await give_back(adapter, pool, await take_all(adapter, pool))


async def test_an_idle_timeout_of_the_servers_costs_nobody_anything(
    adapter: PsycopgAdapter, alone: LocalCluster
) -> None:
    options = {"min_size": 4, "max_size": 4, "kwargs": {"options": "-c idle_session_timeout=500"}}
    async with opened(adapter, alone.primary, **options) as pool:
        for _ in range(3):
            await give_back(adapter, pool, await take_all(adapter, pool))
            await asyncio.sleep(0.7)  # more than the server allows
            connection = await adapter.acquire_from_pool(pool)
            await adapter.release_to_pool(connection, pool)


async def test_a_server_that_closes_each_new_connection_is_an_error(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """And no reason to connect again and again."""
    attempts = 0

    class Closing(psycopg.AsyncConnection[Any]):
        @classmethod
        async def connect(cls, *args: Any, **kwargs: Any) -> Any:
            nonlocal attempts
            attempts += 1
            connection = await super().connect(*args, **kwargs)
            if attempts > 1:  # the first is to see whether the host lets us in
                shut_down(connection)  # as if the server had
            return connection

    options: dict[str, Any] = {"min_size": 2, "max_size": 2, "connection_class": Closing}
    async with opened(adapter, cluster.primary, **options) as pool:
        async with asyncio.timeout(SOON):
            with pytest.raises(psycopg.OperationalError, match="server closed"):
                await adapter.acquire_from_pool(pool)
        assert attempts < 10


async def test_after_all_backends_ended_the_manager_serves_at_once(
    alone: LocalCluster,
) -> None:
    """With one error for each connection that was out, at most, and no host out of service."""
    options = {"min_size": 6, "max_size": 6}
    async with PoolManager(
        alone.dsn, acquire_timeout=PATIENCE, pool_factory_kwargs=options
    ) as manager:
        for _ in range(3):
            held = [await manager.acquire_master() for _ in range(6)]
            for connection in held[2:]:
                await manager.release(connection)
            await end_backends(alone)
            async with manager.acquire_master() as connection:
                await connection.execute("SELECT 1")
            assert manager.master_pool_count == 1
            for connection in held[:2]:
                with pytest.raises(psycopg.OperationalError):
                    await connection.execute("SELECT 1")
                await manager.release(connection)
            # All slots are there again.
            async with asyncio.timeout(SOON):
                held = [await manager.acquire_master() for _ in range(6)]
            for connection in held:
                await connection.execute("SELECT 1")
                await connection.commit()
                await manager.release(connection)


class UnknownTenantError(LookupError):
    """An application's: the request has no tenant."""


@pytest.mark.parametrize("moment", ["at once", "after a query", "in a transaction"])
async def test_what_the_check_raises_is_the_users_at_once(
    adapter: PsycopgAdapter, cluster: LocalCluster, moment: str
) -> None:
    """Psycopg_pool would swallow it, and ask the next connection, for its whole timeout."""
    error: Exception | None = None
    pids: set[int] = set()

    async def check(connection: Connection) -> None:
        pids.add(connection.info.backend_pid)
        if moment != "at once":
            await connection.execute("SELECT 1")
        if moment == "after a query":
            await connection.commit()
        if error is not None:
            raise error
        await connection.rollback()

    async with opened(adapter, cluster.primary, min_size=1, max_size=1, check=check) as pool:
        for error in (
            UnknownTenantError("no tenant"),
            None,
            psycopg.ProgrammingError("no grammar"),
            None,
        ):
            async with asyncio.timeout(SOON):
                if error is None:
                    connection = await adapter.acquire_from_pool(pool)
                    await adapter.release_to_pool(connection, pool)
                else:
                    with pytest.raises(HookError) as caught:
                        await adapter.acquire_from_pool(pool)
                    assert caught.value.__cause__ is error
        # The connection was none the worse for it.
        assert len(pids) == 1
        await give_back(adapter, pool, await take_all(adapter, pool))


async def test_a_check_may_refuse_a_connection(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """By an `OperationalError`, as psycopg_pool's own check does: it is discarded, and another one
    is taken at once."""
    refused: set[int] = set()

    async def check(connection: Connection) -> None:
        if connection.info.backend_pid in refused:
            raise psycopg.OperationalError("not this one")

    async with opened(adapter, cluster.primary, min_size=4, max_size=4, check=check) as pool:
        taken = await take_all(adapter, pool)
        refused |= {connection.info.backend_pid for connection in taken[:3]}
        await give_back(adapter, pool, taken)
        connection = await adapter.acquire_from_pool(pool)
        assert connection is taken[3]
        await adapter.release_to_pool(connection, pool)
        taken = await take_all(adapter, pool)
        assert not refused & {connection.info.backend_pid for connection in taken}
        await give_back(adapter, pool, taken)


async def test_a_check_that_refuses_all_of_them_is_the_hosts_error(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    checks = 0
    refuses = True

    async def check(connection: Connection) -> None:
        nonlocal checks
        checks += 1
        if refuses:
            raise psycopg.OperationalError("none of these")

    async with opened(adapter, cluster.primary, min_size=2, max_size=2, check=check) as pool:
        async with asyncio.timeout(SOON):
            with pytest.raises(psycopg.OperationalError, match="none of these"):
                await adapter.acquire_from_pool(pool)
        assert checks <= 2 * pool.max_size, "connected again and again"
        refuses = False
        await give_back(adapter, pool, await take_all(adapter, pool))


async def test_a_check_that_finds_the_connection_broken_is_no_error_of_its_own(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """Whatever it raises then."""
    breaking = True

    async def check(connection: Connection) -> None:
        nonlocal breaking
        if breaking:
            breaking = False
            adapter.terminate_connection(connection)
        try:
            await connection.execute("SELECT 1")
            await connection.commit()
        except psycopg.Error as exc:
            raise UnknownTenantError from exc

    async with opened(adapter, cluster.primary, min_size=1, max_size=1, check=check) as pool:
        async with asyncio.timeout(SOON):
            connection = await adapter.acquire_from_pool(pool)
        await adapter.release_to_pool(connection, pool)


async def test_a_cancellation_of_the_checks_own_is_its_error(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """The acquire was not cancelled."""

    async def check(connection: Connection) -> None:
        other = asyncio.ensure_future(asyncio.Event().wait())
        other.cancel()
        await other

    async with opened(adapter, cluster.primary, min_size=1, max_size=1, check=check) as pool:
        async with asyncio.timeout(SOON):
            with pytest.raises(HookError) as caught:
                await adapter.acquire_from_pool(pool)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert free(pool) == 1


async def test_a_cancelled_check_on_a_frozen_server_ends_at_once(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    checking = asyncio.Event()

    async def check(connection: Connection) -> None:
        checking.set()
        await connection.execute("SELECT 1")
        await connection.commit()

    async with opened(adapter, cluster.primary, min_size=1, max_size=1, check=check) as pool:
        await give_back(adapter, pool, await take_all(adapter, pool))
        checking.clear()
        await asyncio.to_thread(cluster.freeze, cluster.primary)
        try:
            acquiring = asyncio.ensure_future(adapter.acquire_from_pool(pool))
            await asyncio.wait_for(checking.wait(), SOON)
            acquiring.cancel()
            await asyncio.wait({acquiring}, timeout=2)
            assert acquiring.cancelled()
        finally:
            await asyncio.to_thread(cluster.thaw, cluster.primary)
        await give_back(adapter, pool, await take_all(adapter, pool))


async def test_who_takes_connections_by_hand_has_the_check_as_psycopg_has_it(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    errors: list[Exception] = []
    checks = 0

    async def check(connection: Connection) -> None:
        nonlocal checks
        checks += 1
        if errors:
            raise errors.pop()

    async with opened(adapter, cluster.primary, min_size=1, max_size=1, check=check) as pool:
        errors.append(UnknownTenantError())  # one costs no sleep
        async with asyncio.timeout(SOON), pool.connection() as connection:
            await connection.execute("SELECT 1")
        assert checks == 2
