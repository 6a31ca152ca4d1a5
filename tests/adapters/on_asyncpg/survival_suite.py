"""Sessions that end, errors that tell of it, and nothing that stays behind."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from asyncpg.pool import PoolConnectionHolder
from tests.adapters.on_asyncpg.support import (
    KEPT_BY_A_TIMER,
    LOST,
    Bench,
    Suite,
    alive,
    interrupted,
)
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.core.adapter import HookError
from pyscopg2.testing.cluster import LocalCluster
from pyscopg2.testing.fault_proxy import FaultProxy


class SurvivalSuite(Suite):
    @pytest.mark.parametrize("out", [0, 2], ids=["all idle", "some out"])
    async def test_sessions_that_are_terminated_cost_an_error_each_and_no_host(
        self, bench: Bench, out: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="pyscopg2")
        options = {"min_size": 4, "max_size": 5}
        async with bench.manager_class(
            bench.dsn(), pool_factory_kwargs=options, acquire_timeout=PATIENCE
        ) as manager:
            await manager.ready()
            pool = await manager.get_pool(read_only=False)
            for _ in range(3):
                held = [await manager.acquire_master() for _ in range(out)]
                caplog.clear()
                await bench.end_backends()
                for connection in held:
                    with pytest.raises(LOST):
                        await connection.fetchval("SELECT 1")
                    await manager.release(connection)
                for _ in range(5):
                    async with manager.acquire_master() as connection:
                        assert await connection.fetchval("SELECT 1") == 1
                assert manager.pools == (pool,)
                assert [r.getMessage() for r in caplog.records] == []

    def test_what_asyncpg_calls_an_error_of_its_own_is_a_lost_connection(self) -> None:
        sqlstate = self.driver.adapter.sqlstate
        assert sqlstate(asyncpg.InternalClientError("cannot switch to state 12")) == "08006"
        assert sqlstate(asyncpg.ProtocolError("unexpected message")) == "08006"
        assert sqlstate(asyncpg.OutdatedSchemaCacheError("type changed")) is None
        assert sqlstate(asyncpg.InterfaceError("connection is closed")) is None
        assert sqlstate(asyncpg.UniqueViolationError("twice")) == "23505"
        assert sqlstate(OSError()) is None

    async def test_nothing_is_left_of_pools_that_are_gone(self, bench: Bench) -> None:
        """Whatever became of them, and with their users' contexts living on."""

        number = 0
        untimed = {"max_inactive_connection_lifetime": 0} if KEPT_BY_A_TIMER else {}

        async def setup(connection: Any) -> None:
            if number % 3 == 0:
                raise ZeroDivisionError

        async def use(where: FaultProxy) -> None:
            async with bench.pool(where, max_size=3, setup=setup, **untimed) as pool:
                try:
                    connection = await bench.acquire(pool)
                except HookError:
                    connection = None
                for turn in range(3):
                    try:
                        await interrupted(bench.adapter.acquire_from_pool(pool), 3 * turn)
                    except (asyncio.CancelledError, HookError):
                        pass
                if connection is None:
                    return
                if number % 2:
                    proxy.silence()
                if hasattr(bench.adapter, "return_to_pool"):
                    releasing = bench.adapter.return_to_pool(connection, pool, lambda: None)
                else:
                    releasing = bench.adapter.release_to_pool(connection, pool)
                try:
                    await interrupted(releasing, 0)
                except asyncio.CancelledError:
                    pass

        kinds = (asyncpg.Pool, PoolConnectionHolder)
        before = alive(*kinds)
        async with FaultProxy(bench.node) as proxy:
            for _ in range(24):
                number += 1
                await use(proxy)
            for turn in range(8):
                creating = bench.adapter.create_pool(
                    bench.target(proxy), min_size=2, max_size=2, **untimed
                )
                try:
                    pool = await interrupted(creating, turn)
                except asyncio.CancelledError:
                    pass
                else:
                    await bench.adapter.terminate_pool(pool)
                    del pool
                del creating
            await eventually(lambda: alive(*kinds) == before)

    async def test_a_class_of_the_users_own_is_not_kept(self, bench: Bench) -> None:
        def classes() -> int:
            gc.collect()
            return sum(
                isinstance(each, type) and each.__name__ == "OfOneManager"
                for each in gc.get_objects()
            )

        async def use() -> None:
            class OfOneManager(bench.connection_class):  # type: ignore[misc,name-defined]
                pass

            options = {"min_size": 1, "max_inactive_connection_lifetime": 0}
            async with bench.pool(connection_class=OfOneManager, **options):
                assert classes()

        for _ in range(3):
            await use()
        await eventually(lambda: classes() == 0)


class IdleTimeoutSuite(Suite):
    _LOST = (
        asyncpg.PostgresConnectionError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    )

    @pytest.fixture(scope="class")
    @classmethod
    def cluster(cls) -> Iterator[LocalCluster]:
        with LocalCluster(replicas=0, settings={"idle_session_timeout": "1s"}) as cluster:
            yield cluster

    async def test_a_server_that_ends_idle_sessions_costs_nobody_anything(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="pyscopg2")
        pid = "SELECT pg_backend_pid()"
        options = {"min_size": 2, "max_size": 3}
        async with bench.manager_class(
            bench.dsn(), pool_factory_kwargs=options, acquire_timeout=PATIENCE
        ) as manager:
            await manager.ready()
            pool = await manager.get_pool(read_only=False)
            caplog.clear()
            for _ in range(2):
                async with manager.acquire_master() as connection:
                    before = await connection.fetchval(pid)
                await eventually(
                    lambda: self._is_gone(bench, before)  # noqa: B023
                )
                with contextlib.suppress(*self._LOST):
                    # The server may end the one that comes next in the very moment.
                    async with manager.acquire_master() as connection:
                        assert await connection.fetchval(pid) != before
                        continue
                async with manager.acquire_master() as connection:
                    assert await connection.fetchval(pid) != before
            assert manager.pools == (pool,)
            assert [r.getMessage() for r in caplog.records] == []

    async def _is_gone(self, bench: Bench, pid: int) -> bool:
        return await bench.psql(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}") == "0"
