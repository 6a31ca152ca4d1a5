"""A service under load on a real cluster, with its status page, in this process."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import uvicorn

from pyscopg2.asgi import StatusPage
from pyscopg2.asyncpg import PoolManager
from pyscopg2.testing.cluster import LocalCluster

WRITERS, READERS = 4, 8
PAUSE = 0.02
"""Seconds between two operations of one worker."""

_STOPPING = 10.0
"""Seconds that the server may take to end its responses."""


@dataclass(frozen=True)
class Service:
    """It serves in the block of `running`."""

    manager: PoolManager
    page: StatusPage
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@contextlib.asynccontextmanager
async def running(
    cluster: LocalCluster, title: str = "orders", renew_after: float = 15.0
) -> AsyncGenerator[Service]:
    """In the block it serves, and workers write and read."""
    options = {"min_size": 1, "max_size": 8}
    async with PoolManager(cluster.dsn, 20.0, pool_factory_kwargs=options) as manager:
        page = StatusPage(manager, title=title, renew_after=renew_after)
        await manager.ready()
        async with serving(page) as port, asyncio.TaskGroup() as workers:
            tasks = [
                workers.create_task(_work(manager, number < WRITERS))
                for number in range(WRITERS + READERS)
            ]
            try:
                yield Service(manager, page, port)
            finally:
                for task in tasks:
                    task.cancel()


@contextlib.asynccontextmanager
async def serving(page: StatusPage, port: int = 0) -> AsyncGenerator[int]:
    """Its port; ``port``, or where that is 0, any. The open streams end with the block."""
    config = uvicorn.Config(page, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port)) as listening:
        task = asyncio.ensure_future(server.serve([listening]))
        try:
            while not server.started and not task.done():
                await asyncio.sleep(0.01)
            yield listening.getsockname()[1]
        finally:
            page.close()
            server.should_exit = True
            async with asyncio.timeout(_STOPPING):
                await task


async def _work(manager: PoolManager, writes: bool) -> None:
    while True:
        # A service would tell its client of an error. This one goes on.
        with contextlib.suppress(Exception):
            async with manager.acquire(read_only=not writes) as connection:
                # What it does there is of no interest here, only that it takes some time.
                await connection.execute("SELECT pg_sleep(0.002)")
        await asyncio.sleep(PAUSE)
