"""What machines differ in: the kernel's calls, and threads."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

from tests.adapters.on_psycopg.support import TESTED
from tests.support.waiting import PATIENCE

from pyscopg2.psycopg import PsycopgAdapter
from pyscopg2.testing.cluster import LocalCluster

PROGRAM = Path(__file__).parents[1] / "programs/without_poll.py"


def test_a_program_runs_where_there_is_no_poll(cluster: LocalCluster) -> None:
    arguments = [sys.executable, str(PROGRAM), "pyscopg2.psycopg", cluster.dsn]
    subprocess.run(arguments, check=True, timeout=PATIENCE)


def test_one_adapter_serves_the_loops_of_several_threads(cluster: LocalCluster) -> None:
    """Connections are terminated in one while pools come and go in the other."""
    adapter = PsycopgAdapter()
    primary = TESTED.target(cluster.primary)
    over = threading.Event()
    failures: list[BaseException] = []

    async def come_and_go() -> None:
        for _ in range(40):
            pools = [await adapter.create_pool(primary, min_size=0, max_size=1) for _ in range(3)]
            for pool in pools:
                await adapter.terminate_pool(pool)

    async def terminate() -> None:
        pool = await adapter.create_pool(primary, min_size=1, max_size=1)
        connection = await adapter.acquire_from_pool(pool)
        while not over.is_set():
            for _ in range(100):
                adapter.terminate_connection(connection)
            await asyncio.sleep(0)
        await adapter.release_to_pool(connection, pool)
        await adapter.terminate_pool(pool)

    def run() -> None:
        try:
            asyncio.run(terminate())
        except BaseException as exc:
            failures.append(exc)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        asyncio.run(come_and_go())
    finally:
        over.set()
        thread.join(PATIENCE)
        sys.setswitchinterval(interval)
    assert not failures
