"""A failover under load, as Prometheus sees it."""

import asyncio
import contextlib
import urllib.request
from collections.abc import AsyncGenerator, Callable, Generator

from prometheus_client import CollectorRegistry, start_http_server
from tests.prometheus.scraping import Scrape, samples_in
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.asyncpg import PoolManager
from pyscopg2.prometheus import PoolCollector
from pyscopg2.testing.cluster import LocalCluster

from .support import BROKEN, MakeManager, write

WRITERS = 6
OUTAGE = 0.3
"""Seconds for which there is no master, at least."""


@contextlib.contextmanager
def served(collector: PoolCollector) -> Generator[Callable[[], Scrape]]:
    """By HTTP, in a thread. What it gives scrapes: not in the event loop's thread."""
    registry = CollectorRegistry()
    registry.register(collector)
    server, serving = start_http_server(0, addr="127.0.0.1", registry=registry)
    url = f"http://127.0.0.1:{server.server_port}/metrics"

    def scrape() -> Scrape:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return Scrape(samples_in(response.read().decode()))

    try:
        yield scrape
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


@contextlib.asynccontextmanager
async def load(manager: PoolManager) -> AsyncGenerator[None]:
    """Tasks that write without a pause."""

    async def run() -> None:
        while True:
            with contextlib.suppress(*BROKEN):
                async with manager.acquire_master() as connection:
                    await write(connection)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run()) for _ in range(WRITERS)]
        yield
        for task in tasks:
            task.cancel()


async def test_a_failover_under_load(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    old = breakable_cluster.primary
    new, other = breakable_cluster.replicas
    manager = make_manager(pool_factory_kwargs={"max_size": WRITERS})
    with served(PoolCollector(manager, timeout=PATIENCE)) as scrape:

        async def until(holds: Callable[[Scrape], bool], what: str) -> Scrape:
            """Scrape until this holds; what was told then."""
            told: list[Scrape] = []

            async def look() -> bool:
                told[:] = [await asyncio.to_thread(scrape)]
                return holds(told[0])

            await eventually(look, what)
            return told[0]

        def acquires(told: Scrape, address: str) -> float:
            return told("pyscopg2_acquires_total", host=address) or 0

        async with load(manager):
            before = await until(lambda told: acquires(told, old.address) > 50, "writes go on")
            assert before("pyscopg2_host_role", host=old.address, role="master") == 1
            assert before("pyscopg2_host_role", host=new.address, role="replica") == 1
            assert before("pyscopg2_failovers_total") == 0
            assert acquires(before, new.address) == 0

            await asyncio.to_thread(breakable_cluster.kill, old)
            during = await until(
                lambda told: (
                    told("pyscopg2_pending_acquires") == WRITERS
                    and not any(told.all("pyscopg2_host_role", role="master").values())
                ),
                "all writers wait, and there is no master",
            )
            assert during("pyscopg2_host_role", host=old.address, role="unavailable") == 1
            assert during("pyscopg2_host_serving", host=old.address) == 0
            assert during("pyscopg2_check_failures_total", host=old.address) != 0
            assert during("pyscopg2_retired_pools_total", host=old.address) == 1
            await asyncio.sleep(OUTAGE)
            await asyncio.to_thread(breakable_cluster.promote, new)
            after = await until(
                lambda told: acquires(told, new.address) > 50, "writes go on elsewhere"
            )

        assert after("pyscopg2_host_role", host=new.address, role="master") == 1
        assert after("pyscopg2_host_role", host=old.address, role="master") == 0
        assert after("pyscopg2_host_serving", host=old.address) == 0
        assert after("pyscopg2_failovers_total") == 1
        assert not any(after.all("pyscopg2_acquire_timeouts_total").values())
        # Each writer has waited once for the new master, and longer than it was missing.
        waits = after.all("pyscopg2_wait_seconds_bucket", host=new.address)
        (count,) = after.all("pyscopg2_wait_seconds_count", host=new.address).values()
        (quick,) = (value for labels, value in waits.items() if ("le", "0.25") in labels)
        assert count - quick >= WRITERS
        (before_it,) = before.all("pyscopg2_wait_seconds_count", host=new.address).values()
        assert before_it == 0

        await asyncio.to_thread(breakable_cluster.rejoin, old)
        await until(
            lambda told: (
                told("pyscopg2_host_role", host=old.address, role="replica") == 1
                and told("pyscopg2_host_serving", host=other.address) == 1
                and told("pyscopg2_replication_lag_seconds", host=old.address) is not None
            ),
            "the old master is a replica",
        )
