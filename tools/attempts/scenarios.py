"""What is shown of attempts: each scenario runs by itself and says what came of it."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pyscopg2.asyncpg import AsyncpgAdapter, PoolManager
from pyscopg2.core.errors import CommitUnknown
from pyscopg2.testing.cluster import LocalCluster

from .faults import Fault, in_thread, wait_for_replicas
from .ledger import ROWS, TABLE, Ledger, Row, compare

LOAD = 1.2
"""Times the calls that a dead cluster may get."""

POOL = {"min_size": 1, "max_size": 50}


@dataclass
class Outcome:
    """Of one scenario."""

    name: str
    is_kept: bool
    figures: dict[str, str] = field(default_factory=dict[str, str])
    misses: list[str] = field(default_factory=list[str])


# 1. Writers, and a fault


async def writers(
    cluster: LocalCluster, name: str, fault: Fault, count: int, seconds: float, timeout: float
) -> Outcome:
    """``count`` writers, each with some rows a second; the fault in the middle of that."""
    ledger = Ledger()
    async with PoolManager(cluster.dsn, pool_factory_kwargs=POOL) as manager:
        await manager.ready(1, 2, timeout=30)
        async with manager.acquire_master(timeout=10) as connection:
            await connection.execute(TABLE)
            await connection.execute("TRUNCATE attempted_writes")
        await wait_for_replicas(cluster, True)
        is_over = asyncio.Event()
        writing = [
            asyncio.create_task(_write(manager, ledger, writer, timeout, is_over))
            for writer in range(count)
        ]
        await asyncio.sleep(seconds / 2)
        began = time.perf_counter()
        await fault(cluster)
        took = time.perf_counter() - began
        await asyncio.sleep(seconds / 2)
        is_over.set()
        await asyncio.gather(*writing)
        await wait_for_replicas(cluster, False)
        async with manager.acquire_master(timeout=20) as connection:
            rows: dict[Row, int] = {
                (row[0], row[1]): row[2] for row in await connection.fetch(ROWS)
            }
    verdict = compare(ledger, rows)
    return Outcome(
        f"{count} writers, the master {name}",
        verdict.is_kept and not ledger.early,
        {
            "rows asked for": str(ledger.asked),
            "blocks run once more": str(ledger.blocks - ledger.asked),
            "errors": ", ".join(f"{n} {c}" for n, c in verdict.errors.items()) or "0",
            "CommitUnknown": f"{len(ledger.unknown)}, of these written {verdict.unknown_written}",
            "CommitUnknown without a COMMIT": str(len(ledger.early)),
            "written twice": str(len(verdict.twice)),
            "acknowledged and missing": str(len(verdict.missing)),
            "refused and written": str(len(verdict.denied)),
            "longest": f"{ledger.longest:.2f} s",
            "the fault took": f"{took:.2f} s",
        },
        [
            *(f"written twice: {row}" for row in verdict.twice),
            *(f"missing: {row}" for row in verdict.missing),
            *(f"refused and written: {row}" for row in verdict.denied),
        ],
    )


async def _write(
    manager: PoolManager, ledger: Ledger, writer: int, timeout: float, is_over: asyncio.Event
) -> None:
    await asyncio.sleep(random.uniform(0, 1))
    number = 0
    while not is_over.is_set():
        number += 1
        row = writer, number
        began = time.perf_counter()
        is_done = False
        try:
            async for attempt in manager.attempts(timeout=timeout):
                async with attempt as connection:
                    ledger.blocks += 1
                    is_done = False
                    await connection.execute("INSERT INTO attempted_writes VALUES ($1, $2)", *row)
                    await asyncio.sleep(random.uniform(0, 0.02))
                    is_done = True
        except CommitUnknown:
            ledger.unknown.add(row)
            if not is_done:
                ledger.early.add(row)
        except Exception as exc:
            ledger.refused[row] = type(exc).__name__
        else:
            ledger.acknowledged.add(row)
            ledger.longest = max(ledger.longest, time.perf_counter() - began)
        await asyncio.sleep(random.uniform(0.1, 0.5))


# 2. A dead cluster


class _Counting(AsyncpgAdapter):
    """Counts what reaches for a server."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def create_pool(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return super().create_pool(*args, **options)

    def reserve(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return super().reserve(*args, **options)

    def acquire_from_pool(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return AsyncpgAdapter.acquire_from_pool(*args, **kwargs)


async def dead(cluster: LocalCluster, count: int, seconds: float) -> Outcome:
    """All nodes are killed; then so many writers come, by acquires first and by attempts then."""
    for node in cluster.nodes:
        await in_thread(cluster.kill, node)
    calls: dict[str, int] = {}

    async def by_acquire(manager: PoolManager) -> None:
        async with manager.acquire(timeout=seconds):
            pass

    async def by_attempts(manager: PoolManager) -> None:
        async for attempt in manager.attempts(timeout=seconds):
            async with attempt:
                pass

    errors: set[str] = set()
    uses: dict[str, Callable[[PoolManager], Awaitable[None]]]
    uses = {"acquires": by_acquire, "attempts": by_attempts}
    for name, use in uses.items():
        adapter = _Counting()
        kind = type("Counted", (PoolManager,), {"adapter": adapter})
        async with kind(cluster.dsn, pool_factory_kwargs=POOL) as manager:
            using = [use(manager) for _ in range(count)]
            told = await asyncio.gather(*using, return_exceptions=True)
            errors |= {type(each).__name__ for each in told}
        calls[name] = adapter.calls
    ratio = calls["attempts"] / calls["acquires"]
    return Outcome(
        f"{count} writers, a dead cluster",
        ratio <= LOAD and errors == {"AcquireTimeoutError"},
        {
            "calls, with acquires": str(calls["acquires"]),
            "calls, with attempts": str(calls["attempts"]),
            "ratio": f"{ratio:.2f}",
            "errors": ", ".join(sorted(errors)),
        },
    )
