"""What a fake host answers, how it is connected to, and what is seen of it."""

import asyncio

import pytest
from tests.support.virtual import now, start, virtual
from tests.testing.fake_bench import PLAIN, Bench

from pyscopg2.core.dsn import parse_dsn
from pyscopg2.testing.fake import FakeAdapter, FakeNetwork
from pyscopg2.testing.fake_server import (
    FULL,
    STARTING,
    UNKNOWN_DATABASE,
    WRONG_PASSWORD,
    FakeError,
    FakeServer,
)
from pyscopg2.testing.virtual_time import settle

RICH = "select concat_ws(' ', pg_is_in_recovery(), …)"


def test_the_role_query() -> None:
    server = FakeServer()
    wal = "0/3000148,328,8192,0/3000148,0,200ms"
    rest = f"0/3000148 1 7412345678901234567 {server.started_at} - {wal}"
    assert server.answer(RICH) == f"f off {rest}"
    assert server.answer(f"  {PLAIN.lower()}  ") == "off"
    assert server.answer("select 1") == 1

    server.read_only = True
    assert server.answer(RICH) == f"f server {rest}"
    assert server.answer(PLAIN) == "on"
    server.read_only, server.login_is_read_only = False, True
    assert server.answer(RICH) == f"f login {rest}"
    assert server.answer(PLAIN) == "on"

    replica = FakeServer(in_recovery=True, lsn=None, timeline=7, system_identifier=42)
    assert replica.answer(RICH) == f"t off - 7 42 {replica.started_at} - 7"
    replica.timeline_told = 6
    assert replica.answer(RICH) == f"t off - 6 42 {replica.started_at} - 7"
    replica.tells_receiver = False
    assert replica.answer(RICH) == f"t off - 6 42 {replica.started_at} - -"
    assert replica.answer(PLAIN) == "on"

    server.insert_lsn, server.flush_lsn, server.snapshot = "0/3000200", "0/3000100", 5
    server.read_only, server.login_is_read_only = False, False
    wal = "0/3000200,512,8192,0/3000100,5,200ms"
    assert str(server.answer(RICH)).split(" ")[-1] == wal


@pytest.mark.parametrize("sqlstate", ["42501", "42883", "0A000"])
def test_a_refused_rich_probe_leaves_the_plain_one(sqlstate: str) -> None:
    server = FakeServer(refuse_rich_probe=sqlstate)
    with pytest.raises(FakeError) as refused:
        server.answer(RICH)
    assert refused.value.sqlstate == sqlstate
    assert server.answer(PLAIN) == "off"


def test_scripted_answers() -> None:
    server = FakeServer(answers={"select name": "Ada", "select bad": FakeError("no", "42703")})
    assert server.answer("select name") == "Ada"
    with pytest.raises(FakeError, match="no"):
        server.answer("select bad")


@virtual
async def test_promotion_raises_the_timeline_and_keeps_connections() -> None:
    async with Bench() as bench:
        pool = await bench.pool("db2:5432")
        connection = await pool.acquire()
        bench.network["db2:5432"].promote()
        answer = await connection.fetch_scalar(RICH)
        assert str(answer).startswith("f off 0/3000148 2 7412345678901234567 ")
        with pytest.raises(ValueError, match="not in recovery"):
            bench.network["db2:5432"].promote()


@virtual
async def test_demotion_breaks_connections() -> None:
    async with Bench() as bench:
        pool = await bench.pool()
        connection = await pool.acquire()
        new = bench.network.failover(old_stays=True)
        bench.server.demote(follows=new)
        assert connection.is_closed
        connection = await pool.acquire()
        assert await connection.fetch_scalar(PLAIN) == "on"
        assert bench.server.timeline == 2


def test_failover() -> None:
    network = FakeNetwork.cluster(replicas=3)
    old, second, third, fourth = network.servers.values()
    second.down()
    assert network.failover() is third
    assert network.masters == [old, third]
    assert network.master is third
    assert (old.is_up, old.timeline) == (False, 1)
    assert (third.timeline, fourth.timeline) == (2, 2)
    old.demote(follows=third)
    old.up()
    assert network.failover(to=old) is old
    assert old.timeline == 3
    second.demote()
    third.demote()
    fourth.down()
    with pytest.raises(LookupError):
        network.failover()


def test_a_split_brain() -> None:
    network = FakeNetwork.cluster(replicas=1)
    new = network.failover(old_stays=True)
    assert [server.is_up for server in network.masters] == [True, True]
    assert network.master is new
    assert network.replicas == []


def test_a_network_without_a_master_says_so() -> None:
    with pytest.raises(LookupError, match="no host is a master"):
        _ = FakeNetwork({"a:1": FakeServer(in_recovery=True)}).master


@virtual
async def test_connects_and_queries_take_the_latency() -> None:
    async with Bench() as bench:
        bench.server.latency = 0.25
        pool = await bench.pool(min_size=0)
        assert now() == 0.25
        connection = await pool.acquire()
        await connection.fetch_scalar("select 1")
        assert now() == 0.5
        assert (bench.server.connects, bench.server.queries, bench.server.backends) == (1, 1, 1)
        assert bench.server.log == [(0, "connect"), (0.25, "select 1")]


@pytest.mark.parametrize("sqlstate", [FULL, STARTING, WRONG_PASSWORD, UNKNOWN_DATABASE])
@virtual
async def test_refused_connects(sqlstate: str) -> None:
    async with Bench() as bench:
        bench.server.refuse_connects = sqlstate
        with pytest.raises(FakeError) as refused:
            await bench.pool()
        assert bench.adapter.sqlstate(refused.value) == sqlstate
        bench.network.assert_nothing_left()


@virtual
async def test_a_host_that_is_down_refuses() -> None:
    async with Bench() as bench:
        bench.server.down()
        with pytest.raises(ConnectionRefusedError) as refused:
            await bench.pool()
        assert bench.adapter.sqlstate(refused.value) is None
        assert bench.server.connects == 1
        bench.server.up()
        await bench.pool()


@virtual
async def test_an_unknown_address_and_one_that_moves() -> None:
    async with Bench() as bench:
        pool = await bench.pool(min_size=0)
        old = await pool.acquire()
        bench.network.servers["db1:5432"] = bench.network["db2:5432"]
        new = await pool.acquire()
        assert (old.server.name, new.server.name) == ("db1", "db2")
        await old.execute("insert")
        assert len(bench.network.leftovers) == 3
        del bench.network.servers["db1:5432"]
        with pytest.raises(OSError, match="not known"):
            await pool.acquire()


@virtual
async def test_a_pool_that_cannot_be_filled_leaves_nothing() -> None:
    async with Bench() as bench:
        creating = start(bench.pool(min_size=4))
        await asyncio.sleep(bench.server.latency * 2.5)
        assert bench.server.backends == 2
        bench.server.refuse_connects = FULL
        with pytest.raises(FakeError):
            await creating
        bench.network.assert_nothing_left()

        bench.server.refuse_connects = None
        bench.server.freeze()
        creating = start(bench.pool())
        await settle()
        creating.cancel()
        await settle()
        assert creating.cancelled()
        bench.network.assert_nothing_left()


@virtual
async def test_leftovers_are_named() -> None:
    network = FakeNetwork.cluster(0)
    adapter = FakeAdapter(network)
    (target,) = parse_dsn(network.dsn)
    pool = await adapter.create_pool(target, min_size=0)
    await pool.acquire()
    with pytest.raises(AssertionError, match=r"FakeFlow 1 to db1.*FakePool db1:5432 out=1"):
        network.assert_nothing_left()
    pool.terminate()
    assert network.leftovers == []


@virtual
async def test_reprs() -> None:
    async with Bench() as bench:
        pool = await bench.pool(min_size=0)
        connection = await pool.acquire()
        assert repr(pool) == "<FakePool db1:5432 out=1 idle=0 max=11>"
        assert repr(connection) == "<FakeConnection 1 to db1:5432>"
        pool.terminate()
        assert repr(pool) == "<FakePool db1:5432 out=1 idle=0 max=11 closed>"
        assert repr(connection) == "<FakeConnection 1 to db1:5432 closed>"
        bench.server.freeze()
        assert repr(bench.server) == "<FakeServer db1 frozen master timeline=1>"


@virtual
async def test_a_reserved_connection_is_apart_from_the_pool() -> None:
    network = FakeNetwork.cluster(1)
    adapter = FakeAdapter(network)
    (target, _) = parse_dsn(network.dsn)
    reserved = await adapter.reserve(target)
    pool = await adapter.create_pool(target, min_size=1, max_size=2)
    assert adapter.get_pool_maxsize(pool) == 2
    assert network["db1:5432"].backends == 2
    assert reserved.in_recovery() is None
    assert await reserved.fetch_scalar(PLAIN) == "off"
    assert reserved.in_recovery() is False
    network["db1:5432"].in_recovery = True
    assert await reserved.fetch_scalar(PLAIN) == "on"
    assert reserved.in_recovery() is True
    asking = asyncio.ensure_future(reserved.fetch_scalar(PLAIN))
    await settle()
    reserved.terminate()
    reserved.terminate()
    with pytest.raises(FakeError):
        await asking
    assert reserved.is_closed()
    with pytest.raises(ValueError):
        await adapter.reserve(target, max_size=0)
    network["db1:5432"].down()
    with pytest.raises(ConnectionRefusedError):
        await adapter.reserve(target)
    await adapter.terminate_pool(pool)
    network.assert_nothing_left()
