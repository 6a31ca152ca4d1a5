"""How a manager ends, and what it leaves: nothing."""

import asyncio
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator

import pytest
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.asyncpg import PoolManager
from pyscopg2.core.errors import PoolManagerClosedError
from pyscopg2.testing.cluster import LocalCluster

from .support import (
    BROKEN,
    MakeManager,
    as_application,
    backends,
    backends_end,
    hold_all,
    server_of,
    tasks_end,
)


@contextlib.contextmanager
def lasting(least: float, most: float) -> Generator[None]:
    """The block takes so many seconds."""
    began = time.monotonic()
    yield
    assert least <= time.monotonic() - began < most


async def nothing_is_left(cluster: LocalCluster) -> None:
    await tasks_end()
    await backends_end(cluster)


# Close waits, terminate does not


async def test_close_waits_for_connections_and_sends_those_away_who_wait(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    await manager.ready()
    held = await hold_all(manager, cluster.primary)
    waiting = asyncio.create_task(server_of_a_master(manager))
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(manager.close())
    with lasting(0, 5), pytest.raises(PoolManagerClosedError):
        await waiting
    with pytest.raises(PoolManagerClosedError):
        await manager.acquire()
    for connection in held:
        assert not closing.done()
        assert await connection.fetchval("SELECT pg_sleep(0.05) IS NULL") is False
        await manager.release(connection)
    with lasting(0, 5):
        await closing
    await nothing_is_left(cluster)


async def server_of_a_master(manager: PoolManager) -> str:
    async with manager.acquire() as connection:
        return await server_of(connection)


async def test_close_terminates_what_is_out_after_its_timeout(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    connection = await manager.acquire()
    asking = asyncio.create_task(connection.fetchval("SELECT pg_sleep(600)"))
    with lasting(0.3, 5):
        await manager.close(timeout=0.3)
    with pytest.raises(BROKEN):
        await asking
    await manager.release(connection)
    await nothing_is_left(cluster)


async def test_terminate_waits_for_nobody(make_manager: MakeManager, cluster: LocalCluster) -> None:
    manager = make_manager()
    await manager.ready()
    held = await hold_all(manager, *cluster.nodes)
    asking = [asyncio.create_task(c.fetchval("SELECT pg_sleep(600)")) for c in held[::2]]
    await asyncio.sleep(0.01)
    with lasting(0, 3):
        await manager.terminate()
    for answer in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(answer, BROKEN)
    for connection in held:
        assert manager.is_connection_closed(connection)
        await manager.release(connection)
    await nothing_is_left(cluster)


async def test_close_under_load_interrupts_nobody(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    await manager.ready()
    finished = Counter[str]()

    async def work(read_only: bool) -> None:
        while True:
            try:
                async with manager.acquire(read_only) as connection:
                    finished[await server_of(connection)] += 1
            except PoolManagerClosedError:
                return

    workers = [asyncio.create_task(work(bool(number % 2))) for number in range(30)]
    await eventually(lambda: len(finished) == 3, "all hosts work")
    with lasting(0, 5):
        await manager.close()
    await asyncio.gather(*workers)
    await nothing_is_left(cluster)


async def test_close_cancelled_terminates(make_manager: MakeManager, cluster: LocalCluster) -> None:
    manager = make_manager()
    connection = await manager.acquire()
    with lasting(0, 5), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await manager.close(timeout=60)
    assert manager.is_connection_closed(connection)
    await nothing_is_left(cluster)


async def test_terminate_cuts_a_close_short(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    connection = await manager.acquire()
    closing = asyncio.create_task(manager.close(timeout=60))
    await asyncio.sleep(0)
    with lasting(0, 5):
        await manager.terminate()
        await closing
    assert manager.is_connection_closed(connection)
    await nothing_is_left(cluster)


async def test_an_error_in_the_managers_block_is_seen_at_once(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    with lasting(0, 5), pytest.raises(ZeroDivisionError):
        async with make_manager() as manager:
            await manager.acquire()
            raise ZeroDivisionError
    await nothing_is_left(cluster)


async def test_close_in_every_state_before_the_first_check(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    never_used = make_manager()
    await never_used.close()
    with pytest.raises(PoolManagerClosedError):
        await never_used.acquire()

    for turns in range(0, 60, 4):
        manager = make_manager()
        async with manager:
            for _ in range(turns):
                await asyncio.sleep(0)
    await nothing_is_left(cluster)


# Frozen hosts


@pytest.mark.parametrize("verb", ["close", "terminate"])
async def test_a_frozen_host_holds_up_nobody(
    breakable_cluster: LocalCluster, make_manager: MakeManager, verb: str
) -> None:
    frozen = breakable_cluster.primary
    manager = make_manager(refresh_delay=60, refresh_timeout=0.5)
    await manager.ready()
    held = await hold_all(manager, frozen)
    asking = asyncio.create_task(held[0].fetchval("SELECT pg_sleep(600)"))
    idle = make_manager(refresh_timeout=0.5)
    await idle.ready()
    await asyncio.to_thread(breakable_cluster.freeze, frozen)
    with lasting(0, 5):
        await (manager.close(timeout=0.5) if verb == "close" else manager.terminate())
        await (idle.close() if verb == "close" else idle.terminate())
    with lasting(0, 1), pytest.raises(BROKEN):
        await asking
    for connection in held:
        assert manager.is_connection_closed(connection)
    await nothing_is_left(breakable_cluster)


async def test_closing_while_a_frozen_host_is_being_connected_to(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    await asyncio.to_thread(breakable_cluster.freeze, breakable_cluster.primary)
    manager = make_manager(refresh_timeout=60)
    await manager.wait_replicas_ready(2)
    with lasting(0, 5):
        await manager.close()
    await nothing_is_left(breakable_cluster)


# Programs

PROGRAM = """
import asyncio, os, sys

from pyscopg2.asyncpg import PoolManager


async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no news
    manager = PoolManager(os.environ["DSN"], pool_factory_kwargs={"min_size": 1, "max_size": 3})
    await manager.ready()
    held = await manager.acquire()
    async with manager.acquire(read_only=True) as connection:
        await connection.fetchval("SELECT 1")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


asyncio.run(main())
print("over", flush=True)
"""


UNCLOSED = "ignore:unclosed pool manager:ResourceWarning"
"""What is said of a manager that is never closed: rightly so, and tested with the core."""


@contextlib.asynccontextmanager
async def program(cluster: LocalCluster) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A program that never closes its manager; it ends when it has read a line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-W", UNCLOSED, "-X", "dev", "-c", PROGRAM),
        env=os.environ | {"DSN": as_application(cluster.dsn)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("frozen", [False, True], ids=["well", "frozen"])
async def test_a_program_that_never_closes_its_manager_ends_at_once(
    breakable_cluster: LocalCluster, frozen: bool
) -> None:
    async with program(breakable_cluster) as process:
        assert len(await backends(breakable_cluster.primary)) == 2
        if frozen:
            await asyncio.to_thread(breakable_cluster.freeze, breakable_cluster.primary)
            await asyncio.to_thread(breakable_cluster.freeze, breakable_cluster.replicas[0])
        with lasting(0, 5):
            output, errors = await process.communicate(b"\n")
        assert output == b"over\n"
        assert errors == b""
        assert process.returncode == 0
    await backends_end(breakable_cluster)


# Loops


def test_a_manager_may_be_made_before_the_loop_and_belongs_to_the_first_one(
    cluster: LocalCluster,
) -> None:
    manager = PoolManager(as_application(cluster.dsn), pool_factory_kwargs={"min_size": 0})

    async def use() -> str:
        return await server_of_a_master(manager)

    with asyncio.Runner() as runner:
        assert runner.run(use()) == cluster.primary.name
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(use())
        runner.run(manager.close())
        runner.run(nothing_is_left(cluster))


async def test_the_driver_pools_end_with_the_manager(make_manager: MakeManager) -> None:
    manager = make_manager()
    await manager.ready()
    pools = manager.pools
    await manager.close()
    assert len(pools) == 3
    for pool in pools:
        assert pool.is_closing()
        assert pool.get_size() == 0
