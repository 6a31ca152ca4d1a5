"""What is tried, thousands of times, with one adapter on real servers."""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import anyio

from pyscopg2.core.topology import Role
from pyscopg2.testing.cluster import LocalCluster

from .drivers import Driver, Manager

APPLICATION = "pyscopg2-stress"
SETTLED = 10.0
"""Seconds for what was cancelled to end."""


@dataclass
class Outcome:
    """How one of them went."""

    name: str
    requests: int = 0
    done: int = 0
    cut: int = 0
    """Cancelled by their scope, or timed out."""
    errors: Counter[str] = field(default_factory=Counter[str])
    size: int = 0
    had: int = 0
    """So many connections could be taken at once at the end."""
    backends: int = 0
    """So many the server knew of at the end, the monitor's among them."""
    seconds: list[float] = field(default_factory=list[float])
    """Until a request was served again."""
    out_of_service: int = 0
    """Hosts that were, though they were well."""

    @property
    def lost(self) -> int:
        return self.size - self.had

    @property
    def leaked(self) -> int:
        return max(0, self.backends - self.size - 1)

    @property
    def kept(self) -> bool:
        return not self.lost and not self.leaked and not self.out_of_service


def _dsn(cluster: LocalCluster, driver: Driver) -> str:
    return cluster.dsn.replace("postgresql", driver.scheme, 1) + (
        f"?application_name={APPLICATION}"
    )


async def _count(cluster: LocalCluster, what: str) -> int:
    sql = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{APPLICATION}' {what}"
    return int(await asyncio.to_thread(cluster.psql, cluster.primary, sql))


async def _conclude(
    outcome: Outcome, manager: Manager, driver: Driver, cluster: LocalCluster
) -> Outcome:
    """Take all connections that there should be, at once, and use each."""
    until = time.monotonic() + SETTLED
    taken: list[Any] = []
    while len(taken) < outcome.size and time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            taken.append(await manager.acquire_master(timeout=1))
    for connection in taken:
        await driver.execute(connection, "SELECT 1")
    outcome.had = len(taken)
    outcome.backends = await _count(cluster, "")
    while outcome.backends > outcome.size + 1 and time.monotonic() < until:
        await asyncio.sleep(0.1)
        outcome.backends = await _count(cluster, "")
    for connection in taken:
        await manager.release(connection)
    return outcome


def _make(driver: Driver, cluster: LocalCluster, size: int, **settings: Any) -> Manager:
    options = driver.sizes(1, size)
    made: Manager = driver.make(
        _dsn(cluster, driver), pool_factory_kwargs=options, acquire_timeout=5.0, **settings
    )
    return made


async def _requests(
    outcome: Outcome, manager: Manager, driver: Driver, count: int, tasks: int, cut: Any
) -> None:
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            outcome.requests += 1
            try:
                if await cut(_request):
                    outcome.cut += 1
                else:
                    outcome.done += 1
            except Exception as exc:
                outcome.errors[type(exc).__name__] += 1

    async def _request() -> None:
        async with manager.acquire_master() as connection:
            await driver.execute(connection, "SELECT 1")
            await driver.execute(connection, "SELECT 2")

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())


async def scopes(driver: Driver, count: int, *, size: int = 3) -> Outcome:
    """Requests within cancel scopes of anyio's, which cancel at every await, again and again."""
    outcome = Outcome("cancel scopes of 0-20 ms", size=size)

    async def cut(request: Any) -> bool:
        with anyio.move_on_after(random.uniform(0, 0.02)) as scope:
            await request()
        return scope.cancelled_caught

    with LocalCluster(replicas=0) as cluster:
        async with _make(driver, cluster, size) as manager:
            await manager.ready(1, 0)
            await _requests(outcome, manager, driver, count, 8, cut)
            return await _conclude(outcome, manager, driver, cluster)


@contextlib.contextmanager
def busy(processes: int) -> Generator[None]:
    """So many programs that do nothing but compute; they end with this one."""
    code = "import os\nwhile os.getppid() == %d: sum(range(10000))"
    running = [
        subprocess.Popen([sys.executable, "-c", code % os.getpid()]) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


async def deadlines(driver: Driver, count: int, *, size: int = 5, load: int = 3) -> Outcome:
    """Short blocks within time-outs, on a machine that is kept busy, until so many have fired."""
    outcome = Outcome("time-outs of 5-60 ms, a busy machine", size=size)

    async def cut(request: Any) -> bool:
        try:
            async with asyncio.timeout(random.uniform(0.005, 0.06)):
                await request()
        except TimeoutError:
            return True
        return False

    with LocalCluster(replicas=0) as cluster, busy(load):
        async with _make(driver, cluster, size) as manager:
            await manager.ready(1, 0)
            while outcome.cut < count:
                await _requests(outcome, manager, driver, 500, 40, cut)
            return await _conclude(outcome, manager, driver, cluster)


async def backends(driver: Driver, rounds: int, *, size: int = 5) -> Outcome:
    """All sessions of the role are terminated at once, idle ones and one that is in use; and then
    the server itself ends those that are idle for a second."""
    outcome = Outcome("all backends terminated; idle_session_timeout", size=size)
    with LocalCluster(replicas=1) as cluster:
        async with _make(driver, cluster, size) as manager:
            await manager.ready(1, 1)
            watching = asyncio.create_task(_watch(outcome, manager))
            kill = (
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                f" WHERE application_name = '{APPLICATION}'"
            )
            for _ in range(rounds):
                held = [await manager.acquire_master() for _ in range(size)]
                for connection in held[1:]:
                    await manager.release(connection)
                await asyncio.to_thread(cluster.psql, cluster.primary, kill)
                began = time.monotonic()
                while True:
                    try:
                        async with manager.acquire_master() as connection:
                            await driver.execute(connection, "SELECT 1")
                        break
                    except Exception as exc:
                        outcome.errors[type(exc).__name__] += 1
                outcome.seconds.append(time.monotonic() - began)
                with contextlib.suppress(Exception):
                    await manager.release(held[0])
                outcome.requests += 1
                await asyncio.sleep(0.3)
            setting = "ALTER SYSTEM SET idle_session_timeout = '1s'; SELECT pg_reload_conf()"
            await asyncio.to_thread(cluster.psql, cluster.primary, setting)
            for pause in (0.5, 1.5, 2.5, 1.2, 1.7):
                held = [await manager.acquire_master() for _ in range(size)]
                for connection in held:
                    await manager.release(connection)
                await asyncio.sleep(pause)
                began = time.monotonic()
                try:
                    async with manager.acquire_master() as connection:
                        await driver.execute(connection, "SELECT 1")
                except Exception as exc:
                    outcome.errors[f"idle: {type(exc).__name__}"] += 1
                outcome.seconds.append(time.monotonic() - began)
            watching.cancel()
            return await _conclude(outcome, manager, driver, cluster)


async def _watch(outcome: Outcome, manager: Manager) -> None:
    """Count the hosts that go out of service."""
    before = manager.topology
    while True:
        await asyncio.sleep(0.002)
        after = manager.topology
        for old, new in zip(before, after, strict=True):
            outcome.out_of_service += old.serving and new.role is Role.UNAVAILABLE
        before = after
