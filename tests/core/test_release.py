"""How a connection is given back, also to one pool of the user's choice."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.conftest import Bench, in_use, virtual

from pyscopg2.core.errors import AcquireTimeoutError, PoolManagerClosedError
from pyscopg2.testing.fake import FakeAdapter, FakeConnection, FakePool


@virtual
async def test_a_connection_is_released_once() -> None:
    async with Bench() as bench:
        connection = await bench.manager.acquire()
        await bench.manager.release(connection)
        with pytest.raises(ValueError, match="given back already"):
            await bench.manager.release(connection)


@virtual
async def test_foreign_connections_are_refused() -> None:
    async with Bench() as bench, Bench() as other:
        connection = await other.manager.acquire()
        for give_back in (
            bench.manager.release(connection),
            bench.manager.release_to_pool(connection, bench.pool("db1")),
            bench.manager.release_to_pool(connection, other.pool("db1")),
        ):
            with pytest.raises(ValueError):
                await give_back
        await other.manager.release(connection)


class Sparing(FakeAdapter):
    """Resets nothing, so that a release does not suspend."""

    async def release_to_pool(
        self, connection: FakeConnection, pool: FakePool, /, **kwargs: Any
    ) -> None:
        if kwargs:
            raise TypeError("no such argument")
        self.given_back = connection

    async def acquire_from_pool(self, pool: FakePool, /, **kwargs: Any) -> FakeConnection:
        given_back, self.given_back = self.given_back, None
        return given_back or await pool.acquire()

    given_back: FakeConnection | None = None


@virtual
async def test_an_unknown_argument_of_release_is_a_type_error_and_leaks_nothing() -> None:
    async with Bench() as bench:
        connection = await bench.manager.acquire()
        with pytest.raises(TypeError):
            await bench.manager.release(connection, patience=3)
        await asyncio.sleep(0.5)
        assert in_use(bench.manager) == 0
        assert not connection.is_closed


@virtual
async def test_who_mends_the_arguments_of_a_release_has_given_back_once() -> None:
    """A driver whose connections are the same objects for every user, and come without a wait."""
    async with Bench(adapter=Sparing) as bench:
        connection = await bench.manager.acquire()
        with pytest.raises(TypeError):
            await bench.manager.release(connection, patience=3)
        await bench.manager.release(connection)
        assert await bench.manager.acquire() is connection
        await asyncio.sleep(0.5)
        assert in_use(bench.manager) == 1
        await bench.manager.release(connection)


class Blind(FakeAdapter):
    def is_connection_closed(self, connection: FakeConnection, /) -> bool:
        raise RuntimeError("the adapter's")


@virtual
async def test_where_the_adapter_cannot_tell_what_is_closed_all_is_given_back() -> None:
    async with Bench(replicas=0, size=1, adapter=Blind) as bench:
        for _ in range(3):
            await bench.manager.release(await bench.manager.acquire(timeout=1))
            async with bench.manager.acquire(timeout=1):
                pass
        assert in_use(bench.manager) == 0


@virtual
async def test_a_connection_of_this_very_pool() -> None:
    async with Bench(replicas=2, size=1) as bench:
        manager, pool = bench.manager, bench.pool("db3")
        async with manager.acquire_from_pool(pool) as connection:
            assert connection.server is bench["db3"]
            assert manager.get_pool_freesize(pool) == 0
        connection = await manager.acquire_from_pool(pool, timeout=5)
        with pytest.raises(AcquireTimeoutError, match="no connection to this pool"):
            await manager.acquire_from_pool(pool)
        with pytest.raises(ValueError, match="not a connection of this pool"):
            await manager.release_to_pool(connection, bench.pool("db2"))
        await manager.release_to_pool(connection, pool)
        with pytest.raises(ValueError, match="given back already"):
            await manager.release_to_pool(connection, pool)
        assert manager.get_pool_freesize(pool) == 1
        with pytest.raises(TypeError, match="patience"):
            await manager.acquire_from_pool(pool, patience=3)


@virtual
async def test_a_pool_that_is_not_in_service_is_refused() -> None:
    async with Bench() as bench:
        pool = bench.pool("db2")
        connection = await bench.manager.acquire_replica()
        bench["db2"].down()
        await bench.until_roles("master unavailable")
        bench["db2"].up()
        await bench.until_roles("master replica")
        assert bench.pool("db2") is not pool
        verbs: list[Callable[[], Any]] = [
            lambda: bench.manager.acquire_from_pool(pool),
            lambda: bench.manager.get_pool_freesize(pool),
            lambda: bench.manager.get_last_response_time(pool),
            lambda: bench.manager.register_connection(object(), pool),  # type: ignore[arg-type]
        ]
        for verb in verbs:
            with pytest.raises(ValueError, match="not a pool of this manager's"):
                verb()
        assert not bench.manager.pool_is_replica(pool)
        assert not bench.manager.pool_is_master(pool)
        await bench.manager.release(connection)


@virtual
async def test_a_connection_taken_by_hand_can_be_registered() -> None:
    async with Bench() as bench:
        manager, pool = bench.manager, bench.pool("db1")
        connection = await pool.acquire()
        free = manager.get_pool_freesize(pool)
        for _ in range(2):
            manager.register_connection(connection, pool)
            assert manager.get_pool_freesize(pool) == free - 1
        await manager.release(connection)
        assert manager.get_pool_freesize(pool) == free

        connection = await manager.acquire_from_pool(pool)
        manager.register_connection(connection, pool)
        await manager.release(connection)
        assert manager.get_pool_freesize(pool) == free


@virtual
async def test_of_a_superseded_hosts_pool_nothing_is_registered() -> None:
    async with Bench() as bench:
        pool = bench.pool("db1")
        connection = await pool.acquire()
        bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master")
        with pytest.raises(ValueError, match=r"superseded|retired"):
            bench.manager.register_connection(connection, pool)
        await pool.release(connection)


@virtual
async def test_a_closed_manager_gives_nothing_from_a_pool_either() -> None:
    async with Bench() as bench:
        pool = bench.pool("db1")
        await bench.manager.close()
        with pytest.raises(PoolManagerClosedError):
            await bench.manager.acquire_from_pool(pool)
