"""What the tests of all themes share."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Protocol, TypeAlias

import asyncpg
from asyncpg import Record
from asyncpg.pool import PoolConnectionProxy
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.asyncpg import PoolManager
from pyscopg2.core.topology import Role
from pyscopg2.testing.cluster import LocalCluster, Node

Connection: TypeAlias = "PoolConnectionProxy[Record]"

APPLICATION = "pyscopg2-test"
"""The application name of every connection of a manager under test, and of no other."""


BROKEN = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
"""What users of a connection get when its server, or the manager, ends it."""


class MakeManager(Protocol):
    """The type of the fixture `make_manager`."""

    def __call__(self, dsn: str | None = None, **options: Any) -> PoolManager: ...


async def tasks_end() -> None:
    """Wait until no task runs but this one."""
    me = asyncio.current_task()
    await eventually(lambda: asyncio.all_tasks() <= {me}, "all tasks have ended")


def as_application(dsn: str) -> str:
    return f"{dsn}?application_name={APPLICATION}"


@contextlib.asynccontextmanager
async def connected(node: Node) -> AsyncGenerator["asyncpg.Connection[Record]"]:
    """A connection of the test's own to one server, past every manager."""
    connection = await asyncpg.connect(node.dsn, timeout=PATIENCE)
    try:
        yield connection
    finally:
        connection.terminate()


async def fetchval(node: Node, sql: str) -> Any:
    async with connected(node) as connection:
        return await connection.fetchval(sql)


async def backends(node: Node, where: str = "true") -> list[Record]:
    """The rows of ``pg_stat_activity`` for the connections of managers under test."""
    async with connected(node) as connection:
        return await connection.fetch(f"{BACKENDS} AND ({where})")


def answering(cluster: LocalCluster) -> list[Node]:
    return [node for node in cluster.nodes if node.is_running and not node.is_frozen]


async def backends_end(cluster: LocalCluster) -> None:
    """Wait until no server that can answer knows a connection of a manager under test."""

    async def end(node: Node) -> None:
        async with connected(node) as connection:

            async def are_gone() -> bool:
                return not await connection.fetch(BACKENDS)

            await eventually(are_gone, f"no backend is left on {node!r}")

    async with asyncio.TaskGroup() as nodes:
        for node in answering(cluster):
            nodes.create_task(end(node))


BACKENDS = f"SELECT * FROM pg_stat_activity WHERE application_name = '{APPLICATION}'"

RESERVED = "query LIKE '%SELECT pg_catalog.concat_ws(%' OR query = 'SHOW transaction_read_only'"
"""Of ``pg_stat_activity``: the connections that the monitors keep."""


async def server_of(connection: Connection) -> str:
    """The `Node.name` of the server behind a connection."""
    return str(await connection.fetchval("SHOW cluster_name"))


async def writer(manager: PoolManager, timeout: float | None = None) -> str:
    """The name of the server that a write goes to."""
    async with manager.acquire_master(timeout=timeout) as connection:
        return await write(connection)


async def reader(manager: PoolManager, timeout: float | None = None) -> str:
    """The name of the server that a read goes to."""
    async with manager.acquire_replica(timeout=timeout) as connection:
        return await server_of(connection)


WRITES = "CREATE TABLE IF NOT EXISTS writes (server text); TRUNCATE writes"


async def write(connection: Connection) -> str:
    """Insert a row into the table `writes`; the name of the server that took it."""
    sql = "INSERT INTO writes VALUES (current_setting('cluster_name')) RETURNING server"
    return str(await connection.fetchval(sql))


async def writes_on(node: Node) -> int:
    return int(await fetchval(node, "SELECT count(*) FROM writes"))


def role_of(manager: PoolManager, node: Node) -> Role:
    return manager.topology[node.address].role


async def role_becomes(
    manager: PoolManager, node: Node, role: Role, timeout: float = PATIENCE
) -> None:
    """Wait until a host has the role and, where it is one that serves, a pool."""
    may_serve = role in (Role.MASTER, Role.REPLICA)

    def has_become() -> bool:
        host = manager.topology[node.address]
        return host.role is role and host.serving is may_serve

    await eventually(has_become, f"{node!r} becomes {role}: {manager!r}", timeout)


def pool_of(manager: PoolManager, node: Node) -> Any:
    pool = manager.topology[node.address].pool
    assert pool is not None, f"{node!r} is not in service: {manager!r}"
    return pool


async def hold_all(manager: PoolManager, *nodes: Node) -> list[Connection]:
    """Take every connection that users can have on these nodes."""
    return [
        await manager.acquire_from_pool(pool_of(manager, node))
        for node in nodes
        for _ in range(manager.get_pool_freesize(pool_of(manager, node)))
    ]


async def release_all(manager: PoolManager, connections: list[Connection]) -> None:
    for connection in connections:
        await manager.release(connection)
