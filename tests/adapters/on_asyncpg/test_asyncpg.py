"""What is particular to asyncpg."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from pyscopg2.asyncpg import AsyncpgAdapter
from pyscopg2.core.dsn import parse_dsn
from pyscopg2.testing.cluster import LocalCluster

SOON = 5.0
"""Seconds within which what happens at once has happened, on a busy machine."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=0) as cluster:
        yield cluster


@pytest.mark.parametrize("cancelled", [False, True], ids=["failed", "cancelled"])
async def test_a_pool_whose_creation_ends_halfway_closes_what_it_has_opened(
    cluster: LocalCluster, cancelled: bool
) -> None:
    """Without the garbage collector. The first connections are ready by then."""

    def sockets() -> int:
        found = psutil.Process().net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == cluster.primary.port for each in found)

    opened: list[object] = []
    halfway = asyncio.Event()

    async def init(connection: object) -> None:
        opened.append(connection)
        if len(opened) > 2:
            halfway.set()
            await asyncio.sleep(60 if cancelled else 0)
            raise ZeroDivisionError

    (target,) = parse_dsn(cluster.dsn)
    options: dict[str, Any] = {"min_size": 3, "max_size": 3, "init": init}
    gc.disable()
    try:
        creation = asyncio.ensure_future(AsyncpgAdapter().create_pool(target, **options))
        await asyncio.wait_for(halfway.wait(), SOON)
        if cancelled:
            creation.cancel()
        with pytest.raises(asyncio.CancelledError if cancelled else ZeroDivisionError):
            await asyncio.wait_for(creation, SOON)
        async with asyncio.timeout(SOON):
            while sockets():
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
