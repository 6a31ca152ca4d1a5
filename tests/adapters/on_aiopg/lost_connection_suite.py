"""Connections die while nobody has them, or while somebody does; and some are given back twice."""

import asyncio
import random
import time
from typing import Any

import aiopg
import psycopg2
import pytest
from aiopg.connection import Connection
from tests.adapters.on_aiopg.support import (
    SIZE,
    TESTED,
    Driver,
    Suite,
    all_can_be_taken,
    free,
    manage,
    of,
    opened,
    prepare,
    reserved,
)
from tests.support.waiting import SOON, eventually

from pyscopg2.core.diagnosis.error_class import is_hopeless, is_misuse
from pyscopg2.testing.cluster import LocalCluster


class LostConnectionSuite(Suite):
    async def test_what_an_acquire_opens_while_its_pool_is_ended_is_closed(
        self, driver: Driver, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """aiopg fills its pool up first: the acquire is cancelled when one is open already."""
        adapter = driver.adapter
        first, ended, second = asyncio.Event(), asyncio.Event(), asyncio.Event()
        opened_since: list[Connection] = []

        async def one_and_no_more(*args: Any, **kwargs: Any) -> Connection:
            if opened_since:
                second.set()
                await asyncio.Event().wait()
            first.set()
            await ended.wait()
            opened_since.append(await aiopg.connect(*args, **kwargs))
            return opened_since[-1]

        pool = await adapter.create_pool(TESTED.target(cluster.primary), minsize=2, maxsize=2)
        taken = [await adapter.acquire_from_pool(pool) for _ in range(2)]
        idle = [driver.raw(connection) for connection in taken]
        for connection in taken:
            await adapter.release_to_pool(connection, pool)
        TESTED.end_backends(cluster, cluster.primary)
        await eventually(lambda: all(each.closed for each in idle), "aiopg notices")
        monkeypatch.setattr("aiopg.pool.connect", one_and_no_more)
        acquiring = asyncio.ensure_future(adapter.acquire_from_pool(pool))
        await asyncio.wait_for(first.wait(), SOON)
        await adapter.terminate_pool(pool)
        ended.set()
        await asyncio.wait_for(second.wait(), SOON)
        acquiring.cancel()
        await asyncio.wait({acquiring})
        (left,) = opened_since
        assert left.closed
        await TESTED.no_backends(cluster, cluster.primary)

    async def test_dead_idle_connections_are_gone_through_at_once(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        options = {"minsize": SIZE, "maxsize": SIZE}
        async with manage(driver, cluster, pool_factory_kwargs=options) as manager:
            await manager.ready(masters_count=1, replicas_count=1)
            pool = await manager.get_pool(read_only=False)
            out = await manager.acquire_master()
            for _ in range(3):
                TESTED.end_backends(cluster, cluster.primary)
                errors: list[Exception] = []
                try:
                    await driver.execute(out, "SELECT 1")
                except psycopg2.Error as exc:
                    errors.append(exc)
                await manager.release(out)
                began = time.monotonic()
                for _ in range(2 * SIZE):
                    async with manager.acquire_master() as connection:
                        try:
                            await driver.execute(connection, "SELECT 1")
                        except psycopg2.Error as exc:
                            errors.append(exc)
                assert time.monotonic() - began < SOON  # 0.3 s on an idle machine
                assert len(errors) == 1, "of the one that was out"
                assert await manager.get_pool(read_only=False) is pool, "out of service meanwhile"
                out = await manager.acquire_master()
            await manager.release(out)

    async def test_connections_that_the_server_ends_when_they_are_idle(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        target = TESTED.target(cluster.primary, "&options=-c%20idle_session_timeout%3D500ms")
        async with opened(driver, target, minsize=0, maxsize=SIZE) as pool:
            await all_can_be_taken(driver, pool)
            for _ in range(4):
                # Some live, some have died, some die just now.
                await asyncio.sleep(0.48 + 0.04 * random.random())
                connection = await driver.adapter.acquire_from_pool(pool)
                assert not driver.adapter.is_connection_closed(connection)
                await driver.adapter.release_to_pool(connection, pool)
            TESTED.end_backends(cluster, cluster.primary)
            await TESTED.no_backends(cluster, cluster.primary)
            for _ in range(5):
                # aiopg hears of it from the event loop.
                await asyncio.sleep(0)
            async with asyncio.timeout(SOON):
                connection = await driver.adapter.acquire_from_pool(pool)
                assert await driver.adapter.fetch_scalar(connection, "SELECT 1") == 1
                await driver.adapter.release_to_pool(connection, pool)

    async def test_one_that_dies_while_the_pool_fills_up_is_not_handed_out(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        """aiopg asserts that this can't be."""
        connections: list[Connection] = []

        async def end_the_first(connection: Connection) -> None:
            connections.append(connection)
            if len(connections) == 2 + 2:
                first = connections[2]
                cluster.psql(
                    cluster.primary, f"SELECT pg_terminate_backend({first.raw.get_backend_pid()})"
                )
                await eventually(lambda: bool(first.closed))

        options = {"minsize": 2, "maxsize": SIZE, "on_connect": end_the_first}
        async with opened(driver, TESTED.target(cluster.primary), **options) as pool:
            assert len(connections) == 2
            TESTED.end_backends(cluster, cluster.primary)
            await eventually(lambda: all(each.closed for each in connections))
            connection = await driver.adapter.acquire_from_pool(pool)
            assert connections[2].closed
            assert await driver.adapter.fetch_scalar(connection, "SELECT 1") == 1
            await driver.adapter.release_to_pool(connection, pool)
            await all_can_be_taken(driver, pool)

    async def test_an_assertion_of_aiopgs_own_is_no_misuse(
        self, driver: Driver, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*_: object, **__: object) -> None:
            raise AssertionError("Is conn an async at all???")

        adapter = driver.adapter
        target = TESTED.target(cluster.primary)
        options = {"minsize": 0, "maxsize": SIZE}
        async with (
            opened(driver, target, **options) as pool,
            reserved(driver, target) as check,
        ):
            taken = await adapter.acquire_from_pool(pool)
            monkeypatch.setattr("aiopg.pool.connect", broken)
            monkeypatch.setattr("aiopg.connect", broken)
            monkeypatch.setattr("aiopg.connection.Cursor.execute", broken)
            for verb in (
                of(adapter.acquire_from_pool, pool),
                lambda: adapter.create_pool(target, **options),
                of(adapter.reserve, target),
                of(adapter.fetch_scalar, taken, "SELECT 1"),
                of(check.fetch_scalar, "SELECT 1"),
            ):
                with pytest.raises(psycopg2.InterfaceError) as caught:
                    await verb()
                assert isinstance(caught.value.__cause__, AssertionError)
                assert not is_misuse(caught.value)
                assert not is_hopeless(caught.value, adapter.sqlstate)
            monkeypatch.undo()
            await adapter.release_to_pool(taken, pool)
            await all_can_be_taken(driver, pool)

    @pytest.mark.parametrize("begun", [False, True], ids=["committed", "open"])
    async def test_what_is_said_of_commits_after_a_lost_connection_is_true(
        self, driver: Driver, cluster: LocalCluster, begun: bool
    ) -> None:
        item = f"lost-{begun}"
        async with (
            manage(driver, cluster) as manager,
            # The block's end claims nothing: neither that it has committed, nor that it has not.
            manager.acquire_master() as connection,
        ):
            if begun:
                await prepare(driver, connection, "begun")
            await driver.execute(connection, f"INSERT INTO items VALUES ('{item}')")
            TESTED.end_backends(cluster, cluster.primary)
            await eventually(lambda: manager.is_connection_closed(connection))
            if begun:
                with pytest.raises(psycopg2.Error):
                    await driver.execute(connection, "COMMIT")
        sql = f"SELECT count(*) FROM items WHERE item = '{item}'"
        assert cluster.psql(cluster.primary, sql) == ("0" if begun else "1")

    @pytest.mark.parametrize("closed", [False, True], ids=["idle", "closed"])
    async def test_to_give_back_a_second_time_is_a_value_error(
        self, driver: Driver, cluster: LocalCluster, closed: bool
    ) -> None:
        target = TESTED.target(cluster.primary)
        async with opened(driver, target, minsize=0, maxsize=2) as pool:
            connection = await driver.adapter.acquire_from_pool(pool)
            other = await driver.adapter.acquire_from_pool(pool)
            if closed:
                driver.adapter.terminate_connection(connection)
            await driver.adapter.release_to_pool(connection, pool)
            for _ in range(2):
                with pytest.raises(ValueError, match="given back"):
                    await driver.adapter.release_to_pool(connection, pool)
                assert free(pool) == 1
            await driver.adapter.release_to_pool(other, pool)
            await all_can_be_taken(driver, pool)

    async def test_one_that_was_out_of_a_terminated_pool_is_given_back_once(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        async with opened(driver, TESTED.target(cluster.primary), minsize=0, maxsize=2) as pool:
            connections = [await driver.adapter.acquire_from_pool(pool) for _ in range(2)]
            driver.adapter.terminate_connection(connections[0])
            await driver.adapter.terminate_pool(pool)
            for connection in connections:
                await driver.adapter.release_to_pool(connection, pool)
                with pytest.raises(ValueError, match="given back"):
                    await driver.adapter.release_to_pool(connection, pool)

    async def test_a_pool_that_is_terminated_disturbs_nobody(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        """Another pool's connection has the file descriptor of one that was ended, and is out
        still."""
        target = TESTED.target(cluster.primary)
        async with (
            opened(driver, target, minsize=0, maxsize=1) as pool,
            opened(driver, target, minsize=0, maxsize=2) as other,
        ):
            first = await driver.adapter.acquire_from_pool(pool)
            kept = await driver.adapter.acquire_from_pool(other)
            descriptor = driver.raw(first).raw.fileno()
            driver.adapter.terminate_connection(first)
            second = await driver.adapter.acquire_from_pool(other)
            assert driver.raw(second).raw.fileno() == descriptor
            await driver.adapter.terminate_pool(pool)
            async with asyncio.timeout(SOON):
                await driver.adapter.fetch_scalar(second, "SELECT pg_sleep(0.01)")
            for connection in (kept, second):
                await driver.adapter.release_to_pool(connection, other)
            await driver.adapter.release_to_pool(first, pool)
