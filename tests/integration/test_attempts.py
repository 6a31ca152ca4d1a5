"""Attempts on real servers; `hatch run attempts` does the same at length, and much else."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from pyscopg2.core.attempts.evidence import (
    CONFIRMATION_QUERY,
    EVIDENCE_QUERY,
    Evidence,
    Finding,
    find,
    parse_evidence,
    status_query,
)
from pyscopg2.testing.cluster import LocalCluster

from .support import MakeManager

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.attempts.faults import Fault, lose_what_waits, switch_over
from tools.attempts.scenarios import writers

LOGIN = "of_no_privileges"

TABLES = f"""
    CREATE ROLE {LOGIN} LOGIN PASSWORD '{LOGIN}';
    CREATE TABLE attempted (item int);
    GRANT ALL ON attempted TO {LOGIN};
"""


@pytest.fixture
def cluster(breakable_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """With a table, and a login that may use it."""
    breakable_cluster.psql(breakable_cluster.primary, TABLES)
    yield breakable_cluster
    gone = f"DROP TABLE attempted; DROP ROLE {LOGIN}"
    breakable_cluster.psql(breakable_cluster.primary, gone)


async def connect(cluster: LocalCluster) -> "asyncpg.Connection[asyncpg.Record]":
    node = cluster.primary
    return await asyncpg.connect(
        host="127.0.0.1", port=node.port, user=LOGIN, password=LOGIN, database=cluster.database
    )


async def evidence_of(
    connection: "asyncpg.Connection[asyncpg.Record]", item: int | None, ending: str | None
) -> Evidence:
    """Of a transaction that writes this, or nothing, and ends so, or goes on."""
    await connection.execute("BEGIN")
    if item is not None:
        await connection.execute("INSERT INTO attempted VALUES ($1)", item)
    evidence = parse_evidence(await connection.fetchval(EVIDENCE_QUERY))
    assert evidence is not None
    if ending is not None:
        await connection.execute(ending)
    return evidence


async def asked(connection: "asyncpg.Connection[asyncpg.Record]", of: Evidence) -> Finding:
    assert of.xid is not None
    return find(of, await connection.fetchval(status_query(of.xid)))


async def test_what_servers_tell_an_unprivileged_login_of_transactions(
    cluster: LocalCluster,
) -> None:
    writer, reader = await connect(cluster), await connect(cluster)
    assert (await evidence_of(writer, None, "COMMIT")).xid is None
    committed = await evidence_of(writer, 1, "COMMIT")
    aborted = await evidence_of(writer, 2, "ROLLBACK")
    under_way = await evidence_of(writer, 3, None)
    assert await asked(reader, committed) is Finding.COMMITTED
    assert await asked(reader, aborted) is Finding.NOT_COMMITTED
    assert await asked(reader, under_way) is Finding.UNDER_WAY
    await reader.fetchval(CONFIRMATION_QUERY)

    # The postmaster lives on, and so does its word for when it started.
    walwriter = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
    os.kill(int(cluster.psql(cluster.primary, walwriter)), signal.SIGKILL)
    for connection in (writer, reader):
        while not connection.is_closed():
            await asyncio.sleep(0.01)
    while True:
        try:
            reader = await connect(cluster)
            break
        except (asyncpg.PostgresError, OSError):
            await asyncio.sleep(0.05)
    assert await asked(reader, committed) is Finding.UNKNOWN
    assert await asked(reader, aborted) is Finding.NOT_COMMITTED
    assert await asked(reader, under_way) is Finding.NOT_COMMITTED
    await reader.close()


async def test_a_commit_whose_answer_is_lost_is_found_and_not_made_again(
    cluster: LocalCluster, make_manager: MakeManager
) -> None:
    """It waits for a replica that there is not, until an administrator ends it."""
    primary = cluster.primary
    manager = make_manager()
    await manager.ready()

    def set_replicas(names: str) -> None:
        cluster.psql(primary, f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        cluster.psql(primary, "SELECT pg_reload_conf()")

    blocks = 0

    async def write() -> None:
        nonlocal blocks
        async for attempt in manager.attempts():
            async with attempt as connection:
                blocks += 1
                await connection.execute("INSERT INTO attempted VALUES (1)")

    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    set_replicas("nobody")
    try:
        writing = asyncio.create_task(write())
        while not (pid := await asyncio.to_thread(cluster.psql, primary, waiting)):
            await asyncio.sleep(0.01)
        await asyncio.to_thread(cluster.psql, primary, f"SELECT pg_terminate_backend({pid}, 5000)")
        # What it asks for the confirmation by waits as well.
        while not await asyncio.to_thread(cluster.psql, primary, waiting):
            await asyncio.sleep(0.01)
        assert not writing.done()
    finally:
        set_replicas("")
    await writing
    assert blocks == 1
    assert cluster.psql(primary, "SELECT count(*) FROM attempted") == "1"


@pytest.mark.parametrize("fault", [switch_over, lose_what_waits], ids=lambda fault: fault.__name__)
async def test_writers_hear_of_no_error_and_find_their_rows(
    cluster: LocalCluster, fault: Fault
) -> None:
    outcome = await writers(cluster, fault.__name__, fault, 20, 1.0, 30.0)
    assert outcome.is_kept, (outcome.figures, outcome.misses[:5])
