"""Fake hosts that are frozen, and connections that are cut or broken."""

import asyncio

import pytest
from tests.support.virtual import now, start, virtual
from tests.testing.fake_bench import PLAIN, Bench

from pyscopg2.testing.fake_server import FakeError, FakeServer
from pyscopg2.testing.virtual_time import settle


@virtual
async def test_a_frozen_host_answers_after_the_thaw_and_as_it_is_then() -> None:
    async with Bench() as bench:
        pool = await bench.pool(min_size=0)
        connection = await pool.acquire()
        bench.server.freeze()
        query, connect = start(connection.fetch_scalar(PLAIN)), start(pool.acquire())
        await asyncio.sleep(100)
        assert not query.done()
        assert not connect.done()
        assert not connection.is_closed
        bench.server.read_only = True
        bench.server.thaw()
        assert await query == "on"
        await connect


@virtual
async def test_a_freeze_catches_answers_on_their_way() -> None:
    async with Bench() as bench:
        pool = await bench.pool()
        connection = await pool.acquire()
        bench.server.latency = 1
        query = start(connection.fetch_scalar("select 1"))
        await asyncio.sleep(0.5)
        bench.server.freeze()
        await asyncio.sleep(10)
        assert not query.done()
        bench.server.thaw()
        began = now()
        assert await query == 1
        assert now() == began + 1


def test_a_thaw_revives_no_host_that_is_down() -> None:
    server = FakeServer()
    server.down()
    server.thaw()
    assert not server.is_up


@pytest.mark.parametrize("silence", ["freeze", "cut_flows"])
@virtual
async def test_a_terminated_connection_fails_at_once_and_for_good(silence: str) -> None:
    async with Bench() as bench:
        pool = await bench.pool()
        connection = await pool.acquire()
        getattr(bench.server, silence)()
        query = start(connection.fetch_scalar("select 1"))
        await asyncio.sleep(10)
        bench.adapter.terminate_connection(connection)
        bench.adapter.terminate_connection(connection)
        assert connection.is_closed
        with pytest.raises(FakeError) as failed:
            await query
        assert failed.value.sqlstate == "08003"
        assert now() == pytest.approx(10, abs=0.1)
        bench.server.thaw()
        for operation in (connection.fetch_scalar("select 1"), connection.execute("insert")):
            with pytest.raises(FakeError):
                await operation
        await pool.release(connection)
        assert bench.server.writes == []
        assert pool.free_size == pool.max_size


@virtual
async def test_an_answer_that_came_with_the_termination_is_no_success() -> None:
    async with Bench() as bench:
        connection = await (await bench.pool()).acquire()
        query = start(connection.execute("insert"))
        await settle()
        asyncio.get_running_loop().call_later(bench.server.latency, connection.terminate)
        with pytest.raises(FakeError):
            await query
        assert bench.server.writes == []


@virtual
async def test_cut_flows_stay_dead_while_new_ones_work() -> None:
    async with Bench() as bench:
        pool = await bench.pool(min_size=0)
        dead = await pool.acquire()
        bench.server.cut_flows()
        query = start(dead.fetch_scalar("select 1"))
        assert await (await pool.acquire()).fetch_scalar("select 1") == 1
        bench.server.down()
        bench.server.up()
        await asyncio.sleep(1000)
        assert not query.done()
        assert not dead.is_closed
        query.cancel()
        await settle()
        assert query.cancelled()


@virtual
async def test_silent_to_connects_until_it_is_up() -> None:
    async with Bench() as bench:
        pool = await bench.pool(min_size=0)
        connection = await pool.acquire()
        bench.server.silent_to_connects = True
        connecting = start(pool.acquire())
        assert await connection.fetch_scalar("select 1") == 1
        await asyncio.sleep(1000)
        assert not connecting.done()
        bench.server.up()
        assert await (await connecting).fetch_scalar("select 1") == 1


@pytest.mark.parametrize("notices", [True, False])
@virtual
async def test_broken_connections(notices: bool) -> None:
    async with Bench(notices_breaks=notices) as bench:
        pool = await bench.pool()
        busy, quiet = await pool.acquire(), await pool.acquire()
        query = start(busy.fetch_scalar("select 1"))
        await settle()
        bench.server.break_connections()
        with pytest.raises(ConnectionResetError):
            await query
        assert busy.is_closed
        assert quiet.is_closed is notices
        with pytest.raises(ConnectionResetError):
            await quiet.fetch_scalar("select 1")
        with pytest.raises(FakeError, match="closed"):
            await quiet.fetch_scalar("select 1")
        assert quiet.is_closed
        assert bench.server.backends == 0
        await pool.release(busy)
        await pool.release(quiet)
        assert pool.idle == []


@virtual
async def test_an_orderly_restart_tells_its_clients() -> None:
    async with Bench() as bench:
        connection = await (await bench.pool()).acquire()
        bench.server.restart()
        with pytest.raises(FakeError) as failed:
            await connection.fetch_scalar("select 1")
        assert failed.value.sqlstate == "57P01"
        assert bench.server.is_up


@virtual
async def test_one_operation_at_a_time() -> None:
    async with Bench() as bench:
        connection = await (await bench.pool()).acquire()
        query = start(connection.fetch_scalar("select 1"))
        await settle()
        with pytest.raises(FakeError, match="another operation"):
            await connection.fetch_scalar("select 2")
        assert await query == 1
