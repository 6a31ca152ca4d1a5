"""All hosts go down while 10,000 wait, and come back."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pyscopg2.testing.fake import FakeNetwork

from .contenders import SIZE, managed
from .monitor import fake_manager
from .report import Report

WAITERS = 10_000
HOSTS = 3

Figures = dict[str, str]


def measure(run: Callable[[Coroutine[Any, Any, Figures]], Figures], seconds: float) -> Report:
    """An outage of so many seconds."""
    found = run(_measure(seconds))
    return Report(
        "outage",
        f"an outage of all {HOSTS} hosts for {seconds:g} s, with {WAITERS:,} who wait for a master",
        ("what", "figure"),
        list(found.items()),
        data=found,
    )


async def _measure(seconds: float) -> Figures:
    network = FakeNetwork.cluster(HOSTS - 1)
    master = network.master
    async with managed(fake_manager(network), network.dsn, {"max_size": SIZE}) as manager:
        for server in network.servers.values():
            server.down()
        served: list[float] = []

        async def read() -> None:
            async with manager.acquire_master(timeout=600) as connection:
                await connection.fetch_scalar("select 1")
            served.append(time.perf_counter())

        tasks = [asyncio.create_task(read()) for _ in range(WAITERS)]
        await asyncio.sleep(0.5)
        connects = {s.name: s.connects for s in network.servers.values()}
        spent, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        lasted = time.perf_counter() - began
        busy = (time.process_time() - spent) / lasted
        tried = max(s.connects - connects[s.name] for s in network.servers.values()) / lasted
        before = master.connects, master.queries
        for server in network.servers.values():
            server.up()
        began, spent = time.perf_counter(), time.process_time()
        await asyncio.gather(*tasks)
        done, used = time.perf_counter() - began, time.process_time() - spent
    return {
        "connects tried during it, a host and second": f"{tried:.1f}",
        "one core's share during it": f"{busy:.1%}",
        "from its end to the first who was served": f"{(min(served) - began) * 1000:.0f} ms",
        "from its end to the last": f"{done:.2f} s",
        "connects to the master after it": str(master.connects - before[0]),
        f"queries to the master after it, {WAITERS:,} of them the users'": (
            f"{master.queries - before[1]:,}"
        ),
        "CPU time for each who was served": f"{used / WAITERS * 1e6:.0f} µs",
    }
