"""An address is not a server: behind a `-rw` service or a DNS name it moves; flows die silently."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Self

import pytest
from tests.support.waiting import eventually

from pyscopg2.asyncpg import PoolManager
from pyscopg2.core.topology import Role
from pyscopg2.testing.cluster import LocalCluster, Node
from pyscopg2.testing.fault_proxy import FaultProxy

from .support import BROKEN, MakeManager, as_application, reader, server_of, write


@contextlib.asynccontextmanager
async def proxies(cluster: LocalCluster) -> AsyncGenerator[tuple[str, dict[Node, FaultProxy]]]:
    """A proxy in front of each node, and the DSN that goes through them."""
    async with contextlib.AsyncExitStack() as stack:
        found = {node: await stack.enter_async_context(FaultProxy(node)) for node in cluster.nodes}
        dsn = cluster.dsn
        for node, proxy in found.items():
            dsn = dsn.replace(node.address, proxy.address)
        yield as_application(dsn), found


class Watched:
    """Acquires of the master, without a pause: where each led, and what was known then."""

    def __init__(self, manager: PoolManager, proxy: FaultProxy, count: int = 5) -> None:
        self._manager = manager
        self._proxy = proxy
        self._count = count
        self.writes: list[str] = []
        self.refused = 0
        """Writes that met a server which is read-only: nobody had known that."""

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._tasks = [self._group.create_task(self._work()) for _ in range(self._count)]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    async def _work(self) -> None:
        while True:
            try:
                async with self._manager.acquire_master() as connection:
                    # Without an await since the hand-over: so this is what was known then.
                    host = self._manager.topology[self._proxy.address]
                    assert host.role is Role.MASTER, "handed out by a host known to be no master"
                    self.writes.append(await write(connection))
            except BROKEN as exc:
                self.refused += getattr(exc, "sqlstate", None) == "25006"
                await asyncio.sleep(0.001)

    async def reach(self, node: Node, count: int = 30) -> None:
        """Wait for so many more writes on a server, and none elsewhere among the last of them."""
        start = len(self.writes)
        await eventually(
            lambda: len(self.writes) >= start + count and set(self.writes[-count:]) == {node.name},
            f"writes on {node!r}",
        )


@pytest.mark.parametrize("cut", [True, False], ids=["flows cut", "flows stay"])
async def test_the_masters_address_moves_to_the_promoted_server(
    breakable_cluster: LocalCluster, make_manager: MakeManager, cut: bool
) -> None:
    """One address, as a `-rw` service has it. Flows that stay lead to the old server, which writes
    no more: no connection there may be handed out as a master's once that is known, and a new one
    tells where the address leads now.
    """
    old, new = breakable_cluster.primary, breakable_cluster.replicas[0]
    async with FaultProxy(old) as proxy:
        dsn = breakable_cluster.dsn
        hosts = ",".join(node.address for node in breakable_cluster.nodes)
        manager = make_manager(
            as_application(dsn.replace(hosts, proxy.address)), refresh_delay=0.2, acquire_timeout=5
        )
        await manager.ready()
        async with Watched(manager, proxy) as watched:
            await watched.reach(old)
            # The old server is taken down only where its flows are cut; else it goes on, read-only,
            # as one that was demoted without a restart.
            if cut:
                await asyncio.to_thread(breakable_cluster.stop, old)
            else:
                await asyncio.to_thread(set_read_only, breakable_cluster, old, True)
            await asyncio.to_thread(breakable_cluster.promote, new)
            proxy.move_to(new)
            if cut:
                proxy.cut()
            await watched.reach(new)
        assert role_of_address(manager, proxy) is Role.MASTER
        await eventually(lambda: manager.get_pool_freesize(manager.pools[0]) == 2)


def role_of_address(manager: PoolManager, proxy: FaultProxy) -> Role:
    return manager.topology[proxy.address].role


def set_read_only(cluster: LocalCluster, node: Node, on: bool) -> None:
    """``default_transaction_read_only``, for sessions there are, too."""
    value = "on" if on else "off"
    cluster.psql(
        node,
        "SET default_transaction_read_only = off;"
        f" ALTER SYSTEM SET default_transaction_read_only = {value}; SELECT pg_reload_conf()",
    )


async def test_an_address_that_moves_to_a_replica_serves_reads_and_no_writes(
    cluster: LocalCluster, make_manager: MakeManager
) -> None:
    primary, replica = cluster.primary, cluster.replicas[0]
    async with FaultProxy(primary) as proxy:
        hosts = ",".join(node.address for node in cluster.nodes)
        dsn = as_application(cluster.dsn.replace(hosts, proxy.address))
        manager = make_manager(dsn, refresh_delay=0.1)
        await manager.ready()
        held = await manager.acquire_master()
        proxy.move_to(replica)
        proxy.cut()
        await eventually(lambda: role_of_address(manager, proxy) is Role.REPLICA)
        assert await reader(manager) == replica.name
        with pytest.raises(TimeoutError):
            await manager.acquire_master(timeout=0.2)
        with pytest.raises(BROKEN):
            await held.execute("SELECT 1")
        await manager.release(held)

        proxy.move_to(primary)
        proxy.cut()
        async with manager.acquire_master(timeout=20) as connection:
            assert await connection.fetchval("SHOW cluster_name") == primary.name


async def test_a_primary_that_is_set_read_only_gives_no_masters_connections(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    primary = breakable_cluster.primary
    async with proxies(breakable_cluster) as (dsn, by_node):
        manager = make_manager(dsn, refresh_delay=0.2, acquire_timeout=5)
        await manager.ready()
        async with Watched(manager, by_node[primary]) as watched:
            await watched.reach(primary)
            await asyncio.to_thread(set_read_only, breakable_cluster, primary, True)
            await eventually(
                lambda: role_of_address(manager, by_node[primary]) is Role.REPLICA,
                "the primary is known to be read-only",
            )
            with pytest.raises(TimeoutError):
                await manager.acquire_master(timeout=0.2)
            # Each worker can meet it once or twice; who retries at once meets it no more.
            assert watched.refused <= 4 * 5
            await asyncio.to_thread(set_read_only, breakable_cluster, primary, False)
            await watched.reach(primary)


async def test_after_flows_died_silently_all_is_well_within_seconds(
    cluster: LocalCluster, make_manager: MakeManager
) -> None:
    """Queries that hang on the old flows end by themselves, and the hosts serve anew."""
    loop = asyncio.get_running_loop()
    async with proxies(cluster) as (dsn, by_node):
        manager = make_manager(dsn)
        await manager.ready()
        held = [await manager.acquire_master(), await manager.acquire_replica()]
        for proxy in by_node.values():
            proxy.silence()
        began = loop.time()
        asking = [asyncio.create_task(connection.execute("SELECT 1")) for connection in held]
        for answer in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(answer, BROKEN)
        async with manager.acquire_master() as connection:
            assert await server_of(connection) == cluster.primary.name
        assert await reader(manager) in {node.name for node in cluster.replicas}
        # The bench (`hatch run faults --only silent`) holds it to six.
        assert loop.time() - began < 9
        for connection in held:
            await manager.release(connection)
        await manager.terminate()
