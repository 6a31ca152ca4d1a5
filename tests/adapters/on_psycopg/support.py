"""What the tests of psycopg's adapter share."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool
from tests.support.application import Application

from pyscopg2.psycopg import PsycopgAdapter
from pyscopg2.testing.cluster import LocalCluster, Node

Connection = psycopg.AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]


TESTED = Application("tested")
"""All connections under test."""


@contextlib.asynccontextmanager
async def opened(adapter: PsycopgAdapter, node: Node, **options: Any) -> AsyncGenerator[Pool]:
    pool = await adapter.create_pool(TESTED.target(node), **options)
    try:
        yield pool
    finally:
        await adapter.terminate_pool(pool)


def is_active(connection: psycopg.AsyncConnection[TupleRow]) -> bool:
    """Whether it waits for the server's answer."""
    return connection.info.transaction_status is TransactionStatus.ACTIVE


def count(cluster: LocalCluster, item: str) -> int:
    return int(cluster.psql(cluster.primary, f"SELECT count(*) FROM items WHERE item = '{item}'"))


def backends(cluster: LocalCluster, node: Node) -> int:
    # A server that sleeps does not see that its client is gone.
    return TESTED.backends(cluster, node, "query NOT LIKE '%pg_sleep%'")


async def end_backend(cluster: LocalCluster, connection: Connection) -> None:
    sql = f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)"
    await asyncio.to_thread(cluster.psql, cluster.primary, sql)


def free(pool: Pool) -> int:
    """How many connections could be taken now, opened or not."""
    told = pool.get_stats()
    return pool.max_size - told["pool_size"] + told["pool_available"]
