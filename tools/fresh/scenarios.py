"""What is shown of reads with bounds: each scenario runs by itself and says what came of it."""

import asyncio
import contextlib
import itertools
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from pyscopg2.asyncpg import PoolManager
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.topology import Role
from pyscopg2.testing.cluster import LocalCluster, Node

from .cluster import Replication
from .ledger import SEEN, TABLE, Ledger, Read

BOUNDS = (0.3, 1.0, 3.0)
"""Seconds."""


@dataclass
class Outcome:
    """Of one scenario."""

    name: str
    is_kept: bool
    figures: dict[str, str] = field(default_factory=dict[str, str])
    misses: list[str] = field(default_factory=list[str])


@contextlib.asynccontextmanager
async def _manager(cluster: LocalCluster, **given: Any) -> AsyncGenerator[PoolManager]:
    settings: dict[str, Any] = {"acquire_timeout": 10.0, **given}
    async with PoolManager(cluster.dsn, **settings) as manager:
        await manager.ready(1, 2)
        async with manager.acquire_master() as connection:
            await connection.execute(TABLE)
            await connection.execute("TRUNCATE fresh_writes")
        await asyncio.to_thread(cluster.wait_streaming)
        yield manager


@contextlib.asynccontextmanager
async def _beside(*works: Awaitable[None]) -> AsyncGenerator[None]:
    """They go on until the block ends."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_replica(manager: PoolManager, address: str) -> bool:
    return manager.topology[address].role is not Role.MASTER


async def _numbers(connection: Any) -> dict[int, set[int]]:
    """Of each writer's rows."""
    rows: str = await connection.fetchval(SEEN)
    return {int(writer): set(numbers) for writer, numbers in json.loads(rows).items()}


# 1. Claims against rows


async def claims(cluster: LocalCluster, reads: int, readers: int = 8) -> Outcome:
    """Reads with a bound, against writers, while replay pauses, a receiver is cut, the master
    freezes, and a replica is promoted."""
    ledger = Ledger()
    async with _manager(cluster, refresh_delay=0.5, acquire_timeout=3.0) as manager:
        is_over = asyncio.Event()
        writing = [_write(manager, ledger, writer) for writer in range(4)]
        async with _beside(*writing, _trouble(cluster, reads, ledger, is_over)):
            left = itertools.count()
            await asyncio.gather(
                *(_read(manager, ledger, left, reads, is_over) for _ in range(readers))
            )
            await is_over.wait()
        await asyncio.sleep(0.5)
        async with manager.acquire_master(timeout=20) as connection:
            kept = await _numbers(connection)
    misses = ledger.misses(kept)
    lost = sum(
        number not in kept[writer]
        for writer, times in ledger.committed.items()
        for number in range(1, len(times) + 1)
    )
    by_replicas = sum(read.is_replica for read in ledger.reads)
    waits = [read.waited for read in ledger.reads]
    return Outcome(
        "claims against rows",
        not misses and len(ledger.reads) >= reads,
        {
            "reads": str(len(ledger.reads)),
            "by replicas": str(by_replicas),
            "out of time": str(ledger.timed_out),
            "commits": str(sum(map(len, ledger.committed.values()))),
            "lost in the promotion": str(lost),
            "wait, median": f"{statistics.median(waits):.4f} s",
            "misses": str(len(misses)),
        },
        misses,
    )


async def _write(manager: PoolManager, ledger: Ledger, writer: int) -> None:
    mode = "off" if writer == 0 else "on"
    number = 0
    while True:
        number += 1
        while True:
            try:
                async with manager.acquire_master() as connection:
                    await connection.execute(f"SET synchronous_commit = {mode}")
                    await connection.execute(
                        "INSERT INTO fresh_writes VALUES ($1, $2) ON CONFLICT DO NOTHING",
                        writer,
                        number,
                    )
                break
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await asyncio.sleep(0.01)
        ledger.commit(writer)
        await asyncio.sleep(random.uniform(0, 0.02))


async def _read(
    manager: PoolManager,
    ledger: Ledger,
    left: "itertools.count[int]",
    most: int,
    is_over: asyncio.Event,
) -> None:
    while next(left) < most or not is_over.is_set():
        max_lag = random.choice(BOUNDS)
        began = time.perf_counter()
        try:
            async with manager.acquire_replica(
                fallback_master=random.random() < 0.2, max_lag=max_lag
            ) as connection:
                got = time.perf_counter()
                seen = await _numbers(connection)
                port = await connection.fetchval("SELECT inet_server_port()")
        except AcquireTimeoutError:
            ledger.timed_out += 1
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await asyncio.sleep(0.01)
        else:
            address = f"127.0.0.1:{port}"
            ledger.reads.append(
                Read(
                    got,
                    max_lag,
                    got - began,
                    address,
                    _is_replica(manager, address),
                    seen,
                )
            )
        await asyncio.sleep(random.uniform(0, 0.05))


async def _trouble(
    cluster: LocalCluster, reads: int, ledger: Ledger, is_over: asyncio.Event
) -> None:
    """One thing after the other; the promotion comes last, when most reads are done."""
    replication = Replication(cluster)
    one, two = cluster.replicas
    steps: list[Callable[[], Awaitable[None]]] = [
        lambda: replication.pause(one),
        lambda: replication.resume(one),
        lambda: replication.cut(two),
        lambda: replication.join(two),
        lambda: replication.delay(one, 0.5),
        lambda: replication.delay(one, 0),
        lambda: _do(cluster.freeze, cluster.primary),
        lambda: _do(cluster.thaw, cluster.primary),
        replication.switch_segment,
        replication.checkpoint,
    ]
    while len(ledger.reads) < 0.7 * reads:
        for step in steps:
            await step()
            await asyncio.sleep(random.uniform(0.3, 1.5))
    await replication.pause(two)
    await asyncio.sleep(0.3)
    await _do(cluster.kill, cluster.primary)
    await _do(cluster.promote, one)
    await asyncio.sleep(2)
    with contextlib.suppress(Exception):
        await replication.resume(two)
    while len(ledger.reads) < reads:
        await asyncio.sleep(0.1)
    is_over.set()


async def _do(verb: Callable[[Node], object], node: Node) -> None:
    await asyncio.to_thread(verb, node)


# 2. A quiet cluster


async def quiet(cluster: LocalCluster, seconds: float, *, is_open: bool) -> Outcome:
    """Nobody writes; ``is_open``: but for one transaction that has written, and stays open. There
    is a checkpoint, and a switch of the WAL segment."""
    replication = Replication(cluster)
    waits: list[float] = []
    served: Counter[bool] = Counter()
    async with (
        _manager(cluster, refresh_delay=1.0) as manager,
        contextlib.AsyncExitStack() as stack,
    ):
        if is_open:
            connection = await stack.enter_async_context(manager.acquire_master())
            await stack.enter_async_context(connection.transaction())
            await connection.execute("INSERT INTO fresh_writes VALUES (9, 1)")
            # Quiet it is where nothing was committed since two of the periodic checks.
            await asyncio.sleep(3)
        began = time.perf_counter()
        events = [(seconds / 3, replication.checkpoint), (seconds / 2, replication.switch_segment)]
        while (now := time.perf_counter() - began) < seconds:
            if events and now > events[0][0]:
                await events.pop(0)[1]()
            asked = time.perf_counter()
            async with manager.acquire_replica(max_lag=0.3) as reader:
                waits.append(time.perf_counter() - asked)
                served[await reader.fetchval("SELECT pg_is_in_recovery()")] += 1
            await asyncio.sleep(random.uniform(0, 0.1))
    name = "a quiet cluster, with an open transaction" if is_open else "a quiet cluster"
    return Outcome(
        name,
        served[True] == len(waits) and max(waits) <= 0.15,
        {
            "reads": str(len(waits)),
            "by replicas": str(served[True]),
            "longest wait": f"{max(waits):.4f} s",
            "wait, median": f"{statistics.median(waits) * 1000:.3f} ms",
        },
    )


# 3. Read your writes


async def own_writes(
    cluster: LocalCluster, times: int, *, late: int, patience: float | None = None
) -> Outcome:
    """Write, then read it in the same causal session. ``late``: so many replicas apply each commit
    500 ms late. ``patience``: with it, the master serves after so many seconds."""
    replication = Replication(cluster)
    delayed = cluster.replicas[:late]
    for node in delayed:
        await replication.delay(node, 0.5)
    misses: list[str] = []
    waits: list[float] = []
    served: Counter[str] = Counter()
    names = {node.port: "late" if node in delayed else "prompt" for node in cluster.replicas}
    fallback = patience is not None
    try:
        async with _manager(cluster) as manager:
            numbers = iter(range(times))

            async def use() -> None:
                for number in numbers:
                    with manager.causal():
                        async with manager.acquire_master() as connection:
                            await connection.execute(
                                "INSERT INTO fresh_writes VALUES (7, $1)", number
                            )
                        asked = time.perf_counter()
                        async with manager.acquire_replica(fallback, patience=patience) as reader:
                            waits.append(time.perf_counter() - asked)
                            found = await reader.fetchval(
                                "SELECT count(*) FROM fresh_writes"
                                " WHERE writer = 7 AND number = $1",
                                number,
                            )
                            port = await reader.fetchval("SELECT inet_server_port()")
                        served[names.get(port, "master")] += 1
                        if not found:
                            misses.append(f"{number} on {port}")

            await asyncio.gather(*(use() for _ in range(4)))
    finally:
        for node in delayed:
            await replication.delay(node, 0)
    prompt = served["prompt"] / times
    is_kept = not misses and (prompt >= 0.95 if patience is None else max(waits) <= patience + 0.1)
    return Outcome(
        f"own writes, {late} of 2 late" + ("" if patience is None else f", patience {patience} s"),
        is_kept,
        {
            "times": str(times),
            "misses": str(len(misses)),
            "served by": ", ".join(f"{name} {count}" for name, count in sorted(served.items())),
            "longest wait": f"{max(waits):.3f} s",
            "wait, median": f"{statistics.median(waits):.4f} s",
        },
        misses,
    )


# 4. Proofs on demand


async def on_demand(cluster: LocalCluster, seconds: float, tasks: int = 100) -> Outcome:
    """Many wait for proofs that the periodic checks do not give: all share the same checks."""
    replication = Replication(cluster)
    serials: dict[str, set[int]] = {node.address: set() for node in cluster.nodes}
    try:
        async with _manager(cluster, refresh_delay=1.0) as manager:
            for node in cluster.replicas:
                await replication.pause(node)
            async with manager.acquire_master() as connection:
                await connection.execute("INSERT INTO fresh_writes VALUES (5, 1)")
                position = await manager.wal_position(connection)

            async def wait() -> None:
                with contextlib.suppress(AcquireTimeoutError):
                    async with manager.acquire_replica(after=position, timeout=seconds + 5):
                        pass

            waiting = [asyncio.create_task(wait()) for _ in range(tasks)]
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                for host in manager.topology:
                    serials[host.address].add(host.serial)
                await asyncio.sleep(0.005)
            for node in cluster.replicas:
                await replication.resume(node)
            await asyncio.gather(*waiting)
    finally:
        for node in cluster.replicas:
            await replication.resume(node)
    rates = [len(found) / seconds for found in serials.values()]
    return Outcome(
        f"{tasks} tasks that wait for a proof",
        max(rates) <= 21,
        {"checks a second, each host": ", ".join(f"{rate:.1f}" for rate in rates)},
    )
