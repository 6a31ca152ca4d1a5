"""Writes and blocks on the fake driver."""

import asyncio

import pytest
from tests.support.virtual import start, virtual
from tests.testing.fake_bench import Bench

from pyscopg2.testing.fake import FakeConnection
from pyscopg2.testing.fake_server import FakeError


@virtual
async def test_writes_are_recorded_and_refused_where_they_cannot_be() -> None:
    async with Bench() as bench:
        master = await (await bench.pool()).acquire()
        replica = await (await bench.pool("db2:5432")).acquire()
        assert await master.execute("INSERT INTO t VALUES (1)") == 1
        assert await master.execute("select 1") == 1
        with pytest.raises(FakeError) as refused:
            await replica.execute("insert into t values (2)")
        assert refused.value.sqlstate == "25006"
        bench.server.read_only = True
        with pytest.raises(FakeError):
            await master.execute("update t set a = 3")
        assert bench.server.writes == ["INSERT INTO t VALUES (1)"]
        assert replica.server.writes == []


async def block(bench: Bench, connection: FakeConnection, exc: Exception | None) -> None:
    await connection.execute("insert")
    await bench.adapter.end_block(connection, exc)


@virtual
async def test_a_block_commits_rolls_back_or_does_nothing() -> None:
    async with Bench(commits_at_end=True) as bench:
        pool = await bench.pool()
        connection = await pool.acquire()
        await block(bench, connection, ValueError())
        assert bench.server.writes == []
        await connection.execute("insert 1")
        await pool.release(connection)
        assert bench.server.writes == []
        connection = await pool.acquire()
        await block(bench, connection, None)
        assert bench.server.writes == ["insert"]
        log = len(bench.server.log)
        await bench.adapter.end_block(connection, None)
        assert len(bench.server.log) == log

        bench.adapter.quirks.commits_at_end = False
        await connection.execute("insert 2")
        assert bench.server.writes == ["insert", "insert 2"]
        await bench.adapter.end_block(connection, ValueError())
        assert len(bench.server.log) == log + 1


@virtual
async def test_the_end_of_a_terminated_block_never_looks_like_a_commit() -> None:
    async with Bench(commits_at_end=True) as bench:
        pool = await bench.pool()
        for work in (True, False):
            connection = await pool.acquire()
            if work:
                await connection.execute("insert")
            connection.terminate()
            with pytest.raises(FakeError):
                await bench.adapter.end_block(connection, None)
            await bench.adapter.end_block(connection, ValueError())
            await pool.release(connection)
        assert bench.server.writes == []


@virtual
async def test_the_commit_of_a_frozen_host_ends_by_termination() -> None:
    async with Bench(commits_at_end=True) as bench:
        connection = await (await bench.pool()).acquire()
        await connection.execute("insert")
        bench.server.freeze()
        end = start(bench.adapter.end_block(connection, None))
        await asyncio.sleep(60)
        assert not end.done()
        connection.terminate()
        with pytest.raises(FakeError):
            await end
        bench.server.thaw()
        await asyncio.sleep(60)
        assert bench.server.writes == []
