"""Beyond the contracts: what stands in the README."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator

import psqlpy
import psutil
import pytest
from psqlpy.exceptions import InterfaceError

from psqlpy_pool import PoolManager, PsqlpyAdapter
from psqlpy_pool.wire import find, wire_of
from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.core.errors import NotReadyError
from pyscopg2.testing.cluster import LocalCluster
from pyscopg2.testing.fault_proxy import FaultProxy

SOON = 5.0
"""Seconds within which what happens at once has happened, on however slow a machine."""

adapter = PsqlpyAdapter()


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=0) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: LocalCluster) -> Iterator[LocalCluster]:
    yield shared_cluster
    shared_cluster.thaw(shared_cluster.primary)


def primary(cluster: LocalCluster) -> Target:
    (target,) = parse_dsn(cluster.primary.dsn)
    return target


def sockets(cluster: LocalCluster) -> int:
    """How many connections to the server this process has, duplicates included."""
    connections = psutil.Process().net_connections("tcp")
    return sum(1 for each in connections if each.raddr and each.raddr.port == cluster.primary.port)


async def eventually(condition: Callable[[], object]) -> None:
    until = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < until, "it does not come true"
        await asyncio.sleep(0.01)


async def test_no_descriptor_is_left(cluster: LocalCluster) -> None:
    pool = await adapter.create_pool(primary(cluster), max_size=3)
    taken = [await adapter.acquire_from_pool(pool) for _ in range(3)]
    for connection in taken:
        await adapter.release_to_pool(connection, pool)
    await adapter.terminate_pool(pool)
    await eventually(lambda: sockets(cluster) == 0)


async def test_a_frozen_server_keeps_no_user(cluster: LocalCluster) -> None:
    pool = await adapter.create_pool(primary(cluster), max_size=2)
    connection = await adapter.acquire_from_pool(pool)
    cluster.freeze(cluster.primary)
    asking = asyncio.ensure_future(connection.execute("SELECT 1"))
    await asyncio.wait({asking}, timeout=0.05)
    assert not asking.done()
    adapter.terminate_connection(connection)
    with pytest.raises(psqlpy.Error):
        await asyncio.wait_for(asking, SOON)
    assert adapter.is_connection_closed(connection)
    await adapter.terminate_pool(pool)


async def test_a_wrong_password_is_told_at_once(cluster: LocalCluster) -> None:
    """Though psqlpy has no SQLSTATEs."""
    async with PoolManager(f"postgresql://nobody:x@{cluster.primary.address}/postgres") as manager:
        with pytest.raises(NotReadyError, match="password authentication failed"):
            await asyncio.wait_for(manager.ready(timeout=2 * SOON), SOON)


@pytest.mark.parametrize("query", ["sslmode=require", "require_auth=none"])
def test_what_it_cannot_give_is_known_when_the_manager_is_made(query: str) -> None:
    with pytest.raises(ValueError):
        PoolManager(f"postgresql://user@host/?{query}")
    with pytest.raises(ValueError):
        PoolManager("postgresql://user@%2Ftmp/")
    with pytest.raises(TypeError):
        PoolManager("postgresql://user@host/", pool_factory_kwargs={"min_size": 1})


async def test_behind_a_proxy_it_says_so(cluster: LocalCluster) -> None:
    async with FaultProxy(cluster.primary) as proxy:
        (target,) = parse_dsn(cluster.primary.dsn.replace(cluster.primary.address, proxy.address))
        with pytest.raises(InterfaceError, match="proxy"):
            await adapter.create_pool(target)


def test_a_wire_leads_to_the_socket_that_was_meant_or_nowhere() -> None:
    reader, writer = os.pipe()
    assert wire_of(reader, 1, 1) is None
    os.close(reader)
    os.close(writer)
    assert wire_of(reader, 1, 1) is None
    assert find(0, 0) is None
