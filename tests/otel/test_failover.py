"""A failover of a real cluster, under load, as an exporter shows it."""

import asyncio
import contextlib

import asyncpg
from tests.otel.support import Telemetry

from pyscopg2.asyncpg import PoolManager
from pyscopg2.core.events import Event, MasterChanged
from pyscopg2.opentelemetry import conventions, instrument
from pyscopg2.testing.cluster import LocalCluster


async def write(manager: PoolManager, over: asyncio.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(asyncpg.PostgresError, OSError, asyncpg.InterfaceError):
            async with manager.acquire_master(timeout=30) as connection:
                await connection.execute("SELECT pg_sleep(0.002)")


def roles(telemetry: Telemetry) -> dict[str, str]:
    return {
        each[conventions.POOL_NAME].partition("/")[0]: each["pyscopg2.role"]
        for each, value in telemetry.points("pyscopg2.host.role")
        if value
    }


async def test_a_failover_under_load() -> None:
    telemetry = Telemetry()
    over, named = asyncio.Event(), asyncio.Event()
    seen: list[tuple[MasterChanged, dict[str, str]]] = []

    def listener(event: Event) -> None:
        # What is collected in the very moment in which the manager knows.
        if isinstance(event, MasterChanged):
            seen.append((event, roles(telemetry)))
            if event.after not in (None, old.address):
                named.set()

    with LocalCluster(replicas=1) as cluster:
        old = cluster.primary
        (new,) = cluster.replicas
        async with PoolManager(
            cluster.dsn, pool_factory_kwargs={"min_size": 1, "max_size": 2}
        ) as manager:
            await manager.ready()
            instrument(manager, telemetry.meters, telemetry.tracers)
            manager.subscribe(listener)
            writers = [asyncio.ensure_future(write(manager, over)) for _ in range(4)]
            await asyncio.to_thread(cluster.kill, old)
            await asyncio.to_thread(cluster.promote, new)
            async with asyncio.timeout(30):
                await named.wait()
            over.set()
            await asyncio.gather(*writers)
            lost, *_, last = seen
            assert lost[0].after is None
            assert lost[1][old.address] == "unavailable"
            assert last[1][new.address] == "master"
            together = f"{old.address},{new.address}"
            (failovers,) = telemetry.points("pyscopg2.failovers")
            assert failovers[0][conventions.POOL_NAME].startswith(together)
            assert failovers[1] == 1
            waited = [span for span in telemetry.spans if span.name == "pyscopg2.acquire"]
            assert waited
            assert telemetry.points(conventions.WAIT_TIME)
