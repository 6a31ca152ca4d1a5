"""Bytes for each who waits and each connection that is out, and whether the heap grows."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any

from pyscopg2.testing.fake import FakeNetwork
from pyscopg2.testing.virtual_time import run as run_in_virtual_time

from . import null
from .contenders import SIZE, managed
from .monitor import fake_manager
from .report import Report

COUNT = 10_000

Figures = dict[str, float]


def measure(
    run: Callable[[Coroutine[Any, Any, Figures]], Figures], acquires: int, changes: int
) -> Report:
    tracemalloc.start()
    try:
        found = run(_each()) | run_in_virtual_time(_growth(acquires, changes))
    finally:
        tracemalloc.stop()
    return Report(
        "memory",
        "memory, by tracemalloc",
        ("what", "bytes"),
        [(what, f"{size:,.0f}") for what, size in found.items()],
        data=found,
    )


async def _each() -> Figures:
    async with managed(null.PoolManager, null.DSN, {"size": COUNT}, acquire_timeout=1e4) as manager:
        before = _heap()
        held = [await manager.acquire_master() for _ in range(COUNT)]
        checkout = (_heap() - before) / COUNT
        for connection in held:
            await manager.release(connection)
        del held
    async with managed(null.PoolManager, null.DSN, {"size": SIZE}, acquire_timeout=1e4) as manager:
        held = [await manager.acquire_master() for _ in range(SIZE)]
        waiter = await _per_task(manager.acquire_master)
        for connection in held:
            await manager.release(connection)
    bare = null.NullPool("master", 0)
    return {
        "a connection that is out": checkout,
        "one who waits, its task included": waiter,
        "the same in the line of a bare pool": await _per_task(bare.take),
    }


async def _per_task(wait: Callable[[], Any]) -> float:
    async def one() -> None:
        await wait()

    before = _heap()
    tasks = [asyncio.create_task(one()) for _ in range(COUNT)]
    await asyncio.sleep(0)
    each = (_heap() - before) / COUNT
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return each


async def _growth(acquires: int, changes: int) -> Figures:
    """On a fake cluster, in virtual time."""
    network = FakeNetwork.cluster(1)
    factory = fake_manager(network)
    async with managed(factory, network.dsn, {"max_size": SIZE}, refresh_delay=0.1) as manager:

        async def acquire(count: int) -> None:
            for _ in range(count):
                async with manager.acquire_master():
                    pass

        async def change(count: int) -> None:
            for _ in range(count):
                network.failover()
                await manager.wait_masters_ready(1)
                for server in network.servers.values():
                    if not server.is_up:
                        server.demote(network.master)
                        server.up()
                await manager.ready(1, 1)
                for server in network.servers.values():
                    server.log.clear()
                network.pools[:] = [pool for pool in network.pools if not pool.is_closed]

        # Once, for what grows to a bound: 128 response times a host, the caches of the loop.
        await acquire(1000)
        await change(40)
        await asyncio.sleep(60)
        before = _heap(network)
        await acquire(acquires)
        await asyncio.sleep(60)
        after_acquires = _heap(network)
        await change(changes)
        await asyncio.sleep(60)
        return {
            f"the heap grew by, in {acquires:,} acquires": after_acquires - before,
            f"the heap grew by, in {changes:,} failovers": _heap(network) - after_acquires,
        }


def _heap(network: FakeNetwork | None = None) -> int:
    if network is not None:
        # It keeps a log of all that was sent to it.
        for server in network.servers.values():
            server.log.clear()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
