"""All adapters that are installed, in one process, under fault after fault: what grows?"""

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import psutil

from pyscopg2.testing.cluster import LocalCluster, Node

from .drivers import Driver, Manager, driver

QUIET = 6.0
"""Seconds after the last fault of a round until everything retired has ended."""

_POOLS = {
    "asyncpg.pool.Pool",
    "psycopg_pool.pool_async.AsyncConnectionPool",
    "sqlalchemy.ext.asyncio.engine.AsyncEngine",
    "aiopg.pool.Pool",
}


class Sample(NamedTuple):
    """What there is at the end of a round, when all is well."""

    minutes: float
    faults: int
    served: int
    failed: int
    in_service: int
    alive: int
    """Pools."""
    tasks: int
    files: int
    megabytes: float


def _pools() -> int:
    gc.collect()
    return sum(_name_of(thing) in _POOLS for thing in gc.get_objects())


def _name_of(thing: object) -> str:
    kind = type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


class Soak:
    """Managers, their users, and the faults."""

    def __init__(self, cluster: LocalCluster, names: list[str]) -> None:
        self.cluster = cluster
        self.managers: list[tuple[Driver, Manager]] = []
        for name in names:
            made = driver(name)
            dsn = cluster.dsn.replace("postgresql", made.scheme, 1)
            options = made.sizes(1, 4)
            manager = made.make(
                dsn, pool_factory_kwargs=options, abandon_timeout=2.0, fallback_master=True
            )
            self.managers.append((made, manager))
        self.served = self.failed = self.faults = 0

    async def run(self, minutes: float, tell: Callable[[Sample], None]) -> list[Sample]:
        began = time.monotonic()
        samples: list[Sample] = []
        async with contextlib.AsyncExitStack() as stack:
            for _, manager in self.managers:
                await stack.enter_async_context(manager)
                await manager.ready(timeout=30)
            while (spent := time.monotonic() - began) < minutes * 60:
                await self._round()
                sample = self._sample(spent / 60)
                samples.append(sample)
                tell(sample)
        return samples

    async def _round(self) -> None:
        users = [
            asyncio.create_task(self._use(made, manager, read_only=read_only))
            for made, manager in self.managers
            for read_only in (False, True)
        ]
        for _ in range(3):
            self.faults += 1
            await random.choice((self._freeze, self._kill, self._promote, self._restart))()
            await asyncio.sleep(random.uniform(0.5, 2))
        for user in users:
            user.cancel()
        await asyncio.wait(users)
        for _, manager in self.managers:
            async with asyncio.timeout(60):
                await manager.wait_all_ready()
        await asyncio.sleep(QUIET)

    def _sample(self, minutes: float) -> Sample:
        process = psutil.Process()
        return Sample(
            minutes,
            self.faults,
            self.served,
            self.failed,
            sum(len(manager.pools) for _, manager in self.managers),
            _pools(),
            len(asyncio.all_tasks()),
            process.num_fds(),
            process.memory_info().rss / 2**20,
        )

    async def _use(self, made: Driver, manager: Manager, *, read_only: bool) -> None:
        while True:
            try:
                async with asyncio.timeout(3), manager.acquire(read_only) as connection:
                    await made.execute(connection, "SELECT 1")
                self.served += 1
            except Exception:
                self.failed += 1
            await asyncio.sleep(0.01)

    # Faults

    def _any(self) -> Node:
        return random.choice(self.cluster.nodes)

    async def _freeze(self) -> None:
        node = self._any()
        await asyncio.to_thread(self.cluster.freeze, node)
        await asyncio.sleep(random.uniform(0.5, 4))
        await asyncio.to_thread(self.cluster.thaw, node)

    async def _kill(self) -> None:
        node = self._any()
        await asyncio.to_thread(self.cluster.kill, node)
        await asyncio.sleep(random.uniform(0, 2))
        await asyncio.to_thread(self.cluster.start, node)

    async def _restart(self) -> None:
        node = self._any()
        await asyncio.to_thread(self.cluster.stop, node)
        await asyncio.to_thread(self.cluster.start, node)

    async def _promote(self) -> None:
        old, new = self.cluster.primary, self.cluster.replicas[0]
        await asyncio.to_thread(self.cluster.kill, old)
        await asyncio.sleep(random.uniform(0, 3))
        await asyncio.to_thread(self.cluster.promote, new)
        await asyncio.to_thread(self.cluster.rejoin, old)


async def soak(names: list[str], minutes: float, tell: Callable[[Sample], Any]) -> list[Sample]:
    with LocalCluster() as cluster:
        return await Soak(cluster, names).run(minutes, tell)


def grows(samples: list[Sample]) -> list[str]:
    """What does, in words: pools that are alive and not in service, and memory, after the first
    quarter, by more than a twentieth."""
    found = [
        f"after {sample.minutes:.1f} min {sample.alive} pools alive, {sample.in_service} in service"
        for sample in samples
        if sample.alive != sample.in_service
    ]
    calm = samples[len(samples) // 4 :]
    if len(calm) >= 4:
        half = len(calm) // 2
        first = min(sample.megabytes for sample in calm[:half])
        last = min(sample.megabytes for sample in calm[half:])
        if last > 1.05 * first:
            found.append(f"memory: {first:.1f} MB, later {last:.1f}")
    return found
