"""Hosts come and go; and our own event loop stands still, which is never a host's fault."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from tests.core.conftest import Bench, break_one, in_use, now, start, virtual

from pyscopg2.core.dsn import Target
from pyscopg2.core.errors import AcquireTimeoutError, NotReadyError
from pyscopg2.testing.fake import (
    FakeAdapter,
    FakeConnection,
    FakePool,
    FakeQuirks,
    PooledFakeAdapter,
)
from pyscopg2.testing.fake_server import FULL, FakeError
from pyscopg2.testing.virtual_time import settle, stall


@virtual
async def test_down_and_up() -> None:
    async with Bench() as bench:
        pool = bench.pool("db2")
        bench["db2"].down()
        await bench.until_roles("master unavailable")
        await bench.until(lambda: pool.is_closed, 1)
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire_replica()
        bench["db2"].up()
        async with bench.manager.acquire_replica() as connection:
            assert connection in bench.pool("db2").out
        assert bench.roles == "master replica"


@virtual
async def test_a_restart_in_place_is_hardly_noticed() -> None:
    async with Bench() as bench:
        bench["db1"].restart()
        async with bench.manager.acquire():
            pass
        await bench.check()
        assert bench.roles == "master replica"


@virtual
async def test_who_was_out_during_a_restart_gets_an_error_and_the_host_is_checked() -> None:
    async with Bench(refresh_delay=60) as bench:
        with pytest.raises(ConnectionResetError):
            async with bench.manager.acquire() as connection:
                bench["db1"].down()
                await connection.execute("insert")
        await bench.until_roles("unavailable replica", 0.1)


@virtual
async def test_a_connection_that_comes_back_closed_makes_its_host_suspected() -> None:
    async with Bench(refresh_delay=60) as bench:
        connection = await bench.manager.acquire()
        bench["db1"].down()
        await bench.manager.release(connection)
        await bench.until_roles("unavailable replica", 0.1)


@virtual
async def test_a_write_refused_as_read_only_makes_its_host_suspected() -> None:
    async with Bench(refresh_delay=60) as bench:
        bench["db1"].in_recovery = True
        with pytest.raises(FakeError, match="read-only"):
            async with bench.manager.acquire() as connection:
                await connection.execute("insert")
        await bench.until_roles("replica replica", 0.1)


@virtual
async def test_an_error_of_a_statement_makes_nobody_suspected() -> None:
    async with Bench(refresh_delay=60) as bench:
        bench["db1"].answers["select bad"] = FakeError("no such column", "42703")
        asked = bench["db1"].queries
        with pytest.raises(FakeError):
            async with bench.manager.acquire() as connection:
                await connection.execute("select bad")
        await asyncio.sleep(5)
        assert bench["db1"].queries == asked + 1


@virtual
async def test_a_frozen_host_leaves_and_returns_with_a_new_pool() -> None:
    async with Bench() as bench:
        pool, held = bench.pool("db2"), await bench.manager.acquire_replica()
        answered_at = bench.manager.topology["db2:5432"].answered_at
        bench["db2"].freeze()
        await bench.until_roles("master unavailable", 2.3)
        query = start(held.execute("select 1"))
        await bench.until(query.done, 12)
        assert answered_at is not None
        assert now() == pytest.approx(answered_at + 10, abs=0.1)
        assert isinstance(query.exception(), FakeError)
        assert held.is_closed
        assert pool.is_closed
        await bench.manager.release(held)
        bench["db2"].thaw()
        await bench.until_roles("master replica")
        assert bench.pool("db2") is not pool


@virtual
async def test_a_short_freeze_costs_those_who_are_out_nothing() -> None:
    async with Bench() as bench:
        held = await bench.manager.acquire_replica()
        bench["db2"].freeze()
        await bench.until_roles("master unavailable", 2.3)
        query = start(held.execute("select 1"))
        await asyncio.sleep(2)
        bench["db2"].thaw()
        assert await query == 1
        await bench.manager.release(held)


@virtual
async def test_what_hangs_on_cut_flows_is_ended_soon_after_the_host_is_back() -> None:
    async with Bench(replicas=0) as bench:
        held = await bench.drain()
        asking = [start(connection.execute("select")) for connection in held[1:]]
        await settle()
        bench["db1"].cut_flows()
        await bench.until_roles("unavailable", 3)
        back = await bench.until(lambda: bench.roles == "master", 1)
        assert back < 0.5
        # Who can go on has as long as a check has to answer.
        await asyncio.sleep(0.9)
        assert not any(connection.is_closed for connection in held)
        await bench.until(lambda: all(task.done() for task in asking), 0.2)
        for task in asking:
            with pytest.raises(FakeError, match="is closed"):
                task.result()
        for connection in held:
            assert connection.is_closed
            await bench.manager.release(connection)


@virtual
async def test_what_goes_on_after_a_thaw_is_not_ended() -> None:
    async with Bench(replicas=0) as bench:
        asking = start(work(bench))
        await settle()
        bench["db1"].freeze()
        await bench.until_roles("unavailable", 3)
        bench["db1"].thaw()
        await bench.until_roles("master", 1)
        await asking
        await asyncio.sleep(3)


async def work(bench: Bench) -> None:
    async with bench.manager.acquire() as connection:
        await connection.execute("select")


@virtual
async def test_cut_flows_cost_a_check_and_a_new_pool() -> None:
    async with Bench() as bench:
        pool = bench.pool("db1")
        bench["db1"].cut_flows()
        await bench.until_roles("unavailable replica", 2.3)
        await bench.until_roles("master replica", 1.5)
        assert bench.pool("db1") is not pool
        async with bench.manager.acquire() as connection:
            await connection.execute("insert")


@virtual
async def test_broken_connections_cost_nobody_a_slot() -> None:
    async with Bench() as bench:
        for _ in range(5):
            bench["db1"].break_connections()
            async with bench.manager.acquire() as connection:
                await connection.execute("insert")
            await bench.check()
            assert bench.roles == "master replica"


class NobodyQueuesInTheDriver(PooledFakeAdapter):
    def acquire_from_pool(self, pool: FakePool, /, **kwargs: Any) -> Awaitable[FakeConnection]:
        assert pool.free_size > 0
        return super().acquire_from_pool(pool, **kwargs)


@virtual
async def test_the_reserved_connection_is_reserved_under_full_load() -> None:
    async with Bench(size=3, adapter=NobodyQueuesInTheDriver) as bench:
        held = await bench.drain()
        assert len(held) == 3
        reserved = next(c for c in bench.pool("db1").out if c not in held)
        break_one(reserved)
        for _ in range(5):
            await bench.check()
            assert bench.roles == "master replica"
            assert len(bench.pool("db1").out) == 4
        for connection in held:
            assert not connection.is_closed
            await bench.manager.release(connection)


@virtual
async def test_a_full_server_keeps_its_role_while_it_answers() -> None:
    async with Bench() as bench:
        bench["db1"].refuse_connects = FULL
        held = [await bench.manager.acquire()]
        with pytest.raises(AcquireTimeoutError) as error:
            await bench.manager.acquire()
        assert isinstance(error.value.__cause__, FakeError)
        assert error.value.__cause__.sqlstate == FULL
        assert bench.roles == "master replica"
        assert in_use(bench.manager) == 1
        waiting = start(bench.manager.acquire(timeout=5))
        await asyncio.sleep(1)
        bench["db1"].refuse_connects = None
        held.append(await asyncio.wait_for(waiting, 0.3))
        for connection in held:
            await bench.manager.release(connection)


@virtual
async def test_a_connect_that_fails_is_tried_elsewhere() -> None:
    async with Bench(replicas=2) as bench:
        bench["db2"].refuse_connects = FULL
        began = now()
        held = [await bench.manager.acquire_replica() for _ in range(10)]
        assert {c.server.name for c in held} <= {"db2", "db3"}
        assert now() - began < 0.1
        for connection in held:
            await bench.manager.release(connection)


@virtual
async def test_an_address_that_does_not_exist_yet() -> None:
    bench = Bench(ready=False)
    server = bench.network.servers.pop("db2:5432")
    async with bench:
        await bench.manager.ready(1, 0)
        await bench.until_roles("master unavailable")
        bench.network.servers["db2:5432"] = server
        await bench.until_roles("master replica")


@virtual
async def test_a_nonsensical_answer_makes_a_host_unavailable() -> None:
    async with Bench() as bench:
        bench["db1"].lsn = "elsewhere"
        await bench.until_roles("unavailable replica")
        bench["db1"].lsn = "0/1"
        await bench.until_roles("master replica", 11)


@virtual
async def test_a_host_that_stays_hopeless_for_hours_is_still_watched() -> None:
    bench = Bench(replicas=0, ready=False)
    bench["db1"].refuse_connects = "28P01"
    async with bench, bench.manager:
        await asyncio.sleep(4 * 3600)
        bench["db1"].refuse_connects = None
        await bench.until_roles("master", 13)


# A stalled loop


Tasks = list["asyncio.Task[None]"]


async def idle(bench: Bench) -> Tasks:
    """Between two checks, or wherever they are."""
    return []


async def during_a_check(bench: Bench) -> Tasks:
    asked = bench["db1"].queries
    await bench.until(lambda: bench["db1"].queries > asked, 3)
    return []


async def during_a_connect(bench: Bench) -> Tasks:
    held = await bench.manager.acquire()

    async def use() -> None:
        async with bench.manager.acquire(timeout=90) as connection:
            assert connection is not held
        await bench.manager.release(held)

    task = start(use())
    await asyncio.sleep(0)
    return [task]


async def during_a_release(bench: Bench) -> Tasks:
    connection = await bench.manager.acquire()
    task = start(bench.manager.release(connection))
    await asyncio.sleep(0)
    return [task]


@pytest.mark.parametrize("phase", [idle, during_a_check, during_a_connect, during_a_release])
@pytest.mark.parametrize("seconds", [1.05, 2.0, 30.0])
@virtual
async def test_a_stall_costs_no_host_its_place(
    phase: Callable[[Bench], Coroutine[Any, Any, Tasks]], seconds: float
) -> None:
    async with Bench(replicas=1) as bench:
        pools = bench.pool("db1"), bench.pool("db2")
        tasks = await phase(bench)
        stall(seconds)
        roles: set[str] = set()

        def watch() -> bool:
            roles.add(bench.roles)
            return False

        with pytest.raises(AssertionError, match="not within"):
            await bench.until(watch, 4)
        assert roles == {"master replica"}
        assert (bench.pool("db1"), bench.pool("db2")) == pools
        await asyncio.gather(*tasks)
        assert in_use(bench.manager) == 0


@virtual
async def test_a_stall_during_the_first_check_costs_nothing() -> None:
    bench = Bench(ready=False)
    async with bench, bench.manager:
        await asyncio.sleep(0.0005)
        stall(2)
        await bench.until_roles("master replica", 0.1)


@virtual
async def test_a_stall_hides_no_frozen_host() -> None:
    async with Bench() as bench:
        bench["db2"].freeze()
        await asyncio.sleep(1.3)
        stall(2)
        await bench.until_roles("master unavailable", 1.5)


# Drivers that do not do what they are told


class Deaf(PooledFakeAdapter):
    """Its acquires do not hear a cancellation: they go on, and return."""

    async def acquire_from_pool(self, pool: FakePool, /, **kwargs: object) -> FakeConnection:
        acquire = asyncio.ensure_future(pool.acquire())
        while not acquire.done():
            try:
                await asyncio.shield(acquire)
            except asyncio.CancelledError:
                continue
        return acquire.result()


@virtual
async def test_a_check_that_was_given_up_does_not_take_the_next_ones_connection() -> None:
    async with Bench(replicas=0, adapter=Deaf, abandon_timeout=60) as bench:
        server, old = bench["db1"], bench.pool("db1")
        held = await bench.manager.acquire()
        server.break_connections()
        server.latency = 1.5
        await bench.until_roles("unavailable", 9)
        server.latency = 0.001
        await bench.until_roles("master", 2.4)
        pool = bench.pool("db1")
        await asyncio.sleep(0.5)
        # It came through in the meantime.
        assert not old.is_closed
        await asyncio.sleep(10)
        assert bench.pool("db1") is pool
        assert pool.free_size == pool.max_size - 1
        await bench.manager.release(held)


@virtual
async def test_a_frozen_host_whose_driver_cancels_slowly() -> None:
    async with Bench(quirks=FakeQuirks(cancel_delay=11)) as bench:
        bench["db1"].freeze()
        await bench.until_roles("unavailable replica", 2.3)
        await settle()
        bench["db1"].thaw()
        await bench.until_roles("master replica", 2.3)


@virtual
async def test_a_pool_that_was_not_published_ends_whatever_its_driver_says() -> None:
    class Adapter(FakeAdapter):
        async def release_to_pool(
            self, connection: FakeConnection, pool: FakePool, /, **kwargs: Any
        ) -> None:
            await super().release_to_pool(connection, pool, **kwargs)
            raise FakeError("it was closed")

    async with Bench(replicas=0, ready=False, adapter=Adapter) as bench:
        bench["db1"].refuse_rich_probe = "XX000"
        with pytest.raises(NotReadyError):
            await bench.manager.ready(timeout=5)
        assert sum(not pool.is_closed for pool in bench.network.pools) <= 1


class SlowPools(FakeAdapter):
    """Its pools are open some time before it says so."""

    gate: asyncio.Event

    async def create_pool(self, target: Target, /, **options: Any) -> FakePool:
        pool = await super().create_pool(target, **options)
        await self.gate.wait()
        return pool


@virtual
async def test_a_pool_that_opens_during_a_check_is_no_answer_to_it() -> None:
    SlowPools.gate = asyncio.Event()
    async with Bench(replicas=0, ready=False, adapter=SlowPools, refresh_timeout=9) as bench:
        manager = bench.manager
        await manager.__aenter__()
        while manager.topology["db1:5432"].answer is None:
            await asyncio.sleep(0.01)
        await bench.check()
        bench["db1"].freeze()
        checking = start(manager.wait_next_pool_check())
        await asyncio.sleep(5)
        assert manager.topology["db1:5432"].overdue
        SlowPools.gate.set()
        await settle()
        assert len(manager.topology.masters) == 1
        assert manager.topology["db1:5432"].overdue
        assert not checking.done()
        bench["db1"].thaw()
        await checking
        assert not manager.topology["db1:5432"].overdue


@pytest.mark.parametrize("turns", range(12))
@virtual
async def test_a_pool_that_opens_as_the_manager_ends_is_ended(turns: int) -> None:
    SlowPools.gate = asyncio.Event()
    async with Bench(replicas=0, ready=False, adapter=SlowPools) as bench:
        await bench.manager.__aenter__()
        while bench.manager.topology["db1:5432"].answer is None:
            await asyncio.sleep(0.01)
        SlowPools.gate.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        await bench.manager.terminate()
        await settle()
        bench.assert_nothing_left()
