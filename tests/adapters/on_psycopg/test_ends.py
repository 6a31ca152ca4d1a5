"""How pools end, and that nothing is left of them."""

import asyncio
import gc
import logging
import subprocess
import sys
import time
import weakref
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool
from tests.adapters.on_psycopg.support import TESTED, Pool, backends
from tests.support.waiting import PATIENCE, SOON, eventually

from pyscopg2.psycopg import PoolManager, PsycopgAdapter
from pyscopg2.testing.cluster import LocalCluster


async def test_terminate_leaves_nothing_even_of_a_pool_that_connects(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    node = cluster.primary
    before = asyncio.all_tasks()
    pool = await adapter.create_pool(TESTED.target(node), min_size=0, max_size=8)
    held = await adapter.acquire_from_pool(pool)
    await asyncio.to_thread(cluster.freeze, node)
    waiting: list[asyncio.Future[Any]] = []

    def connecting() -> bool:
        # The pool's size counts those that are being opened; one may have been when it froze.
        out = 1 + sum(each.done() for each in waiting)
        stats = pool.get_stats()
        return stats["requests_waiting"] >= 3 and stats["pool_size"] > out

    try:
        waiting += [asyncio.ensure_future(adapter.acquire_from_pool(pool)) for _ in range(4)]
        await eventually(connecting, "workers connect, and users wait")
        began = time.monotonic()
        await adapter.terminate_pool(pool)
        await asyncio.wait(waiting, timeout=SOON)
        await adapter.terminate_pool(pool)
        assert time.monotonic() - began < 2
        assert asyncio.all_tasks() - set(waiting) == before
        assert adapter.is_connection_closed(held)
        assert all(isinstance(w.exception(), Exception) for w in waiting[1:])
    finally:
        await asyncio.to_thread(cluster.thaw, node)
    await eventually(lambda: not backends(cluster, node), "backends are left")


async def until_gone(pools: "weakref.WeakSet[Pool]") -> None:
    def none_is_left() -> bool:
        gc.collect()
        return not pools

    await eventually(none_is_left, "pools are alive")


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> "weakref.WeakSet[Pool]":
    """All that the adapter makes."""
    pools: weakref.WeakSet[Pool] = weakref.WeakSet()

    class Noted(AsyncConnectionPool[Any]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            pools.add(self)

    monkeypatch.setattr("pyscopg2.psycopg.adapter.AsyncConnectionPool", Noted)
    return pools


@pytest.mark.parametrize(
    "how", ["closed", "terminated", "connecting", "frozen", "refused", "cancelled"]
)
async def test_nobody_keeps_a_pool_that_has_ended(
    adapter: PsycopgAdapter, alone: LocalCluster, pools: "weakref.WeakSet[Pool]", how: str
) -> None:
    """Neither its tasks, nor what an error refers to, nor the adapter, which lives for ever."""
    node = alone.primary

    async def life() -> None:
        pool = await adapter.create_pool(TESTED.target(node), min_size=1, max_size=4)
        connection = await adapter.acquire_from_pool(pool)
        acquiring: list[asyncio.Future[Any]] = []
        if how in ("connecting", "frozen"):
            if how == "frozen":
                await asyncio.to_thread(alone.freeze, node)
            acquiring = [asyncio.ensure_future(adapter.acquire_from_pool(pool)) for _ in range(3)]
            await asyncio.sleep(0)
        elif how == "refused":
            await asyncio.to_thread(alone.kill, node)
            adapter.terminate_connection(connection)
            with pytest.raises(psycopg.OperationalError):
                await adapter.acquire_from_pool(pool)
        else:
            await adapter.release_to_pool(connection, pool)
        if how == "closed":
            await adapter.close_pool(pool)
        else:
            await adapter.terminate_pool(pool)
        for each in acquiring:
            each.cancel()
        await asyncio.gather(*acquiring, return_exceptions=True)

    assert not pools
    try:
        if how == "cancelled":
            for turn in range(8):
                creating = asyncio.ensure_future(adapter.create_pool(TESTED.target(node)))
                for _ in range(turn):
                    await asyncio.sleep(0.002)
                creating.cancel()
                await asyncio.wait({creating})
                if not creating.cancelled():
                    await adapter.terminate_pool(creating.result())
                del creating
        else:
            for _ in range(1 if how == "refused" else 3):
                await life()
                await asyncio.to_thread(alone.thaw, node)
        await until_gone(pools)
    finally:
        await asyncio.to_thread(alone.thaw, node)


def test_nor_does_an_event_loop_that_ended_first(
    adapter: PsycopgAdapter, alone: LocalCluster, pools: "weakref.WeakSet[Pool]"
) -> None:
    async def forget() -> None:
        await adapter.create_pool(TESTED.target(alone.primary), min_size=1, max_size=4)

    asyncio.run(forget())
    gc.collect()
    assert not pools


async def test_nor_does_a_manager_whose_hosts_come_and_go(
    alone: LocalCluster, pools: "weakref.WeakSet[Pool]", monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pytest keeps what is logged, and with it errors that refer to all that raised them.
    monkeypatch.setattr(logging.getLogger("pyscopg2"), "disabled", True)
    async with PoolManager(
        alone.dsn, refresh_delay=0.1, acquire_timeout=PATIENCE, pool_factory_kwargs={"min_size": 1}
    ) as manager:
        for _ in range(3):
            async with manager.acquire_master() as connection:
                await connection.execute("SELECT 1")
            await asyncio.to_thread(alone.kill, alone.primary)
            await eventually(lambda: not manager.available_pool_count, "the host is out")
            await asyncio.to_thread(alone.start, alone.primary)
        async with manager.acquire_master() as connection:
            await connection.execute("SELECT 1")
        del connection

        def one_is_left() -> bool:
            gc.collect()
            return len(pools) == 1

        await eventually(one_is_left, "retired pools are alive")


async def test_only_what_the_pool_started_ends_with_it(
    adapter: PsycopgAdapter, cluster: LocalCluster, busy_lock: None
) -> None:
    """Not the tasks of others that began while it was opened."""
    going = True
    others: list[asyncio.Task[None]] = []

    async def begin() -> None:
        while going:
            others.append(asyncio.ensure_future(asyncio.sleep(PATIENCE)))
            await asyncio.sleep(0)

    beginning = asyncio.ensure_future(begin())
    pool = await adapter.create_pool(TESTED.target(cluster.primary), min_size=1, max_size=1)
    going = False
    await beginning
    await adapter.terminate_pool(pool)
    assert not any(other.done() for other in others)
    for other in others:
        other.cancel()


FORGETFUL = """
import asyncio, os, signal, sys
from pyscopg2.psycopg import PoolManager

async def main():
    manager = PoolManager(sys.argv[1], pool_factory_kwargs={"min_size": 0, "max_size": 4})
    connection = await manager.acquire_master(timeout=30)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    # Workers of the pool begin to connect, and get no answer where the server is frozen.
    async def acquire():
        await manager.acquire_master(timeout=30)
    waiting = [asyncio.ensure_future(acquire()) for _ in range(2)]
    await asyncio.sleep(float(sys.argv[2]))

asyncio.run(main())
"""


@pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
@pytest.mark.parametrize("pause", ["0.05", "1.5"])
async def test_a_program_that_never_closes_ends_at_once(
    cluster: LocalCluster, frozen: bool, pause: str
) -> None:
    warnings = ("-W", "error", "-W", "ignore:unclosed pool manager:ResourceWarning")
    command = [sys.executable, *warnings, "-c", FORGETFUL, cluster.primary.dsn, pause]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE) == b"ready\n"
        if frozen:
            await asyncio.to_thread(cluster.freeze, cluster.primary)
        began = time.monotonic()
        process.stdin.write(b"\n")
        await process.stdin.drain()
        await asyncio.wait_for(process.wait(), PATIENCE)
        assert time.monotonic() - began < float(pause) + 3
        assert b"Traceback" not in await process.stderr.read()
    finally:
        await asyncio.to_thread(cluster.thaw, cluster.primary)
        if process.returncode is None:
            process.kill()
            await process.wait()
