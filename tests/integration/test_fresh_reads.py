"""Reads with bounds, on real servers; `hatch run fresh` does the same at length."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.wal import WalPosition
from pyscopg2.testing.cluster import LocalCluster

from .support import MakeManager

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.fresh.cluster import Replication
from tools.fresh.scenarios import Outcome, claims, own_writes, quiet


def kept(outcome: Outcome) -> None:
    assert outcome.is_kept, (outcome.figures, outcome.misses[:5])


@pytest.fixture
async def replication(breakable_cluster: LocalCluster) -> AsyncIterator[Replication]:
    """Of a cluster whose replicas follow as they should in the end."""
    replication = Replication(breakable_cluster)
    yield replication
    for node in breakable_cluster.replicas:
        await replication.delay(node, 0)
        await replication.join(node)
        await replication.resume(node)


@pytest.mark.parametrize("is_open", [False, True], ids=["idle", "a transaction is open"])
async def test_replicas_of_a_quiet_cluster_are_proven(
    breakable_cluster: LocalCluster, replication: Replication, is_open: bool
) -> None:
    outcome = await quiet(breakable_cluster, 3, is_open=is_open)
    # How long they wait, on a busy machine, `hatch run fresh` says.
    assert outcome.figures["by replicas"] == outcome.figures["reads"], outcome.figures


async def test_own_writes_are_read_from_the_prompt_replica(
    breakable_cluster: LocalCluster, replication: Replication
) -> None:
    outcome = await own_writes(breakable_cluster, 40, late=1)
    assert not outcome.misses, outcome.misses
    assert "prompt" in outcome.figures["served by"]


async def test_where_all_are_late_the_master_serves_after_the_patience(
    breakable_cluster: LocalCluster, replication: Replication
) -> None:
    outcome = await own_writes(breakable_cluster, 10, late=2, patience=0.1)
    assert not outcome.misses, outcome.misses
    assert outcome.figures["served by"].startswith("master")


async def test_no_read_misses_what_its_bound_covers(
    breakable_cluster: LocalCluster, replication: Replication
) -> None:
    kept(await claims(breakable_cluster, 200))


async def test_a_commit_that_is_not_flushed_yet_has_a_position_that_covers_it(
    breakable_cluster: LocalCluster, replication: Replication, make_manager: MakeManager
) -> None:
    manager = make_manager(breakable_cluster.dsn, acquire_timeout=10)
    await manager.ready(1, 2)
    positions: list[WalPosition] = []
    for number in range(50):
        async with manager.acquire_master() as connection:
            await connection.execute("SET synchronous_commit = off")
            async with connection.transaction():
                await connection.execute("INSERT INTO writes DEFAULT VALUES")
                # Within a transaction it covers what was committed before it.
                within = await manager.wal_position(connection)
            position = await manager.wal_position(connection)
            count = await connection.fetchval("SELECT count(*) FROM writes")
        assert within < position
        positions.append(position)
        async with manager.acquire_replica(after=str(position)) as connection:
            assert await connection.fetchval("SELECT count(*) FROM writes") >= count, number
    assert positions == sorted(positions)


async def test_a_standby_has_no_position(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    manager = make_manager(breakable_cluster.dsn)
    await manager.ready(1, 2)
    async with manager.acquire_replica() as connection:
        with pytest.raises(ValueError, match="is a standby"):
            await manager.wal_position(connection)


async def test_in_a_transaction_that_has_failed_the_servers_error_comes(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    manager = make_manager(breakable_cluster.dsn)
    with manager.causal() as session:
        with pytest.raises(asyncpg.UndefinedTableError):
            async with manager.acquire_master() as connection, connection.transaction():
                try:
                    await connection.execute("SELECT FROM nowhere")
                except asyncpg.PostgresError:
                    with pytest.raises(asyncpg.InFailedSQLTransactionError):
                        await manager.wal_position(connection)
                    raise
        assert session.position is not None, "asked for after the rollback"


async def test_an_unprivileged_login_reads_with_bounds_too(
    breakable_cluster: LocalCluster, replication: Replication, make_manager: MakeManager
) -> None:
    """It may not know what a standby receives: the control file's timeline counts."""
    cluster = breakable_cluster
    cluster.psql(cluster.primary, "CREATE ROLE reader LOGIN PASSWORD 'secret'")
    cluster.wait_streaming()
    dsn = cluster.dsn.replace(f"{cluster.user}:{cluster.password}@", "reader:secret@")
    manager = make_manager(dsn, acquire_timeout=10)
    try:
        await manager.ready(1, 2)
        for _ in range(20):
            async with manager.acquire_replica(max_lag=0.5) as connection:
                assert await connection.fetchval("SELECT pg_is_in_recovery()")
            await asyncio.sleep(0.05)
    finally:
        await manager.terminate()
        cluster.psql(cluster.primary, "DROP ROLE reader")


async def test_a_replica_that_receives_nothing_is_not_used(
    breakable_cluster: LocalCluster, replication: Replication, make_manager: MakeManager
) -> None:
    one, two = breakable_cluster.replicas
    manager = make_manager(breakable_cluster.dsn, acquire_timeout=10)
    await manager.ready(1, 2)
    await replication.cut(one)
    await replication.cut(two)
    async with manager.acquire_master() as connection:
        await connection.execute("INSERT INTO writes DEFAULT VALUES")
        position = await manager.wal_position(connection)
    with pytest.raises(AcquireTimeoutError, match="s behind at most"):
        await manager.acquire_replica(after=position, timeout=1)
    with pytest.raises(AcquireTimeoutError, match="s behind at most"):
        await manager.acquire_replica(max_lag=0.3, timeout=1)
    await replication.join(two)
    async with manager.acquire_replica(after=position, timeout=20) as connection:
        assert await connection.fetchval("SELECT inet_server_port()") == two.port
