"""Roles change: promotions, demotions, two masters, and who is superseded."""

import asyncio

import pytest
from tests.core.conftest import Bench, break_one, in_use, now, reserved, start, virtual

from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.monitoring.attention import CONNECT_GAP
from pyscopg2.testing.fake_server import FakeError, FakeServer


@virtual
async def test_a_failover_while_somebody_waits_for_the_new_master() -> None:
    async with Bench(replicas=2, refresh_delay=30) as bench:
        bench["db1"].down()
        await bench.check()
        asyncio.get_running_loop().call_later(0.1, bench.network.failover)
        async with bench.manager.acquire(timeout=2) as connection:
            assert connection.server is bench["db2"]
        assert now() < 0.3
        assert bench.roles == "superseded master replica"


@virtual
async def test_a_promoted_replica_keeps_its_pool_and_its_readers() -> None:
    async with Bench() as bench:
        pool = bench.pool("db2")
        reader = await bench.manager.acquire_replica()
        bench.network.failover()
        await bench.until_roles("superseded master")
        assert bench.pool("db2") is pool
        assert not reader.is_closed
        await bench.manager.release(reader)
        async with bench.manager.acquire() as connection:
            assert connection.address == "db2:5432"


@virtual
async def test_a_demotion_by_restart() -> None:
    async with Bench() as bench:
        pool = bench.pool("db1")
        new = bench.network.failover(old_stays=True)
        bench["db1"].demote(follows=new)
        await bench.until_roles("replica master")
        async with bench.manager.acquire_replica() as connection:
            assert connection.server is bench["db1"]
        assert bench.pool("db1") is not pool
        await bench.until(lambda: pool.is_closed, 1)


@pytest.mark.parametrize("demote", ["in_recovery", "read_only"])
@virtual
async def test_a_demotion_in_slot_ends_the_host_pool(demote: str) -> None:
    """Behind a proxy, or by ``default_transaction_read_only``: all connections live on."""
    async with Bench(replicas=0) as bench:
        old, writer = bench.pool("db1"), await bench.manager.acquire()
        setattr(bench["db1"], demote, True)
        await bench.until(lambda: bench.manager.replica_pool_count == 1, 1.5)
        new = bench.pool("db1")
        assert new is not old
        async with bench.manager.acquire_replica() as reader:
            assert reader in new.out
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire()
        assert not old.is_closed
        assert not writer.is_closed
        await bench.manager.release(writer)
        await bench.until(lambda: old.is_closed, 1)
        setattr(bench["db1"], demote, False)
        await bench.until_roles("master")
        assert bench.pool("db1") is new


@virtual
async def test_a_demoted_hosts_old_connections_are_abandoned_in_time() -> None:
    async with Bench(replicas=0, abandon_timeout=4) as bench:
        writer = await bench.manager.acquire()
        bench["db1"].in_recovery = True
        await bench.until_roles("replica")
        took = await bench.until(lambda: writer.is_closed, 6)
        assert took == pytest.approx(4, abs=0.1)
        await bench.manager.release(writer)


@virtual
async def test_of_two_masters_on_one_timeline_the_first_stays_it() -> None:
    async with Bench() as bench:
        pool, reader = bench.pool("db2"), await bench.manager.acquire_replica()
        bench["db2"].in_recovery = False
        await bench.until_roles("master rival")
        for _ in range(10):
            async with bench.manager.acquire() as connection:
                assert connection.server is bench["db1"]
        with pytest.raises(AcquireTimeoutError, match="db2:5432 rival of db1:5432"):
            await bench.manager.acquire_replica()
        await bench.manager.release(reader)
        await bench.until(lambda: pool.is_closed, 1)
        bench["db2"].demote()
        await bench.until_roles("master replica")
        async with bench.manager.acquire_replica():
            pass


@virtual
async def test_a_foreign_host_gets_neither_writes_nor_reads() -> None:
    async with Bench(replicas=2) as bench:
        old = bench["db3"]
        foreign = bench.network.servers["db3:5432"] = FakeServer("f", timeline=9)
        foreign.system_identifier = 5
        old.down()
        await bench.until_roles("master replica foreign", 3)
        bench["db1"].down()
        bench["db2"].promote()
        await bench.until_roles("superseded master foreign")
        for _ in range(10):
            async with bench.manager.acquire(fallback_master=True, read_only=True) as connection:
                assert connection.server is bench["db2"]
            async with bench.manager.acquire() as connection:
                assert connection.server is bench["db2"]
        # By the monitor alone.
        assert foreign.backends == 1


@virtual
async def test_without_fencing_two_systems_are_two_masters() -> None:
    bench = Bench(ready=False, fencing=False)
    bench.network.servers["db2:5432"] = FakeServer("db2", timeline=9, system_identifier=5)
    async with bench:
        await bench.manager.ready()
        assert bench.roles == "master master"


@virtual
async def test_a_newer_master_in_recovery_still_supersedes() -> None:
    async with Bench(replicas=2) as bench:
        bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master replica")
        bench["db2"].demote()
        await bench.until_roles("superseded replica replica")
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire(timeout=5)
        assert bench["db1"].writes == []
        bench["db2"].promote()
        async with bench.manager.acquire(timeout=5) as connection:
            assert connection.server is bench["db2"]


@virtual
async def test_a_host_that_is_gone_for_good_is_forgotten() -> None:
    async with Bench() as bench:
        bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master")
        bench["db2"].down()
        await bench.until_roles("superseded unavailable")
        with pytest.raises(AcquireTimeoutError, match=r"forget\('db2:5432'\)"):
            await bench.manager.acquire()
        bench.manager.forget("db2:5432")
        async with bench.manager.acquire() as connection:
            assert connection.server is bench["db1"]
        with pytest.raises(ValueError, match="db1:5432, db2:5432"):
            bench.manager.forget("db2")
        # It is back: what it tells counts.
        bench["db2"].up()
        await bench.until_roles("superseded master")


@virtual
async def test_the_newest_timeline_wins() -> None:
    async with Bench(replicas=2) as bench:
        held = await bench.manager.acquire()
        working = start(held.execute("insert 1"))
        await working
        bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master replica")
        assert held.is_closed
        for _ in range(30):
            async with bench.manager.acquire() as connection:
                assert connection.server is bench["db2"]
            async with bench.manager.acquire_replica() as connection:
                assert connection.server is bench["db3"]
        await bench.manager.release(held)
        assert bench["db1"].writes == ["insert 1"]
        bench["db2"].down()
        await bench.until_roles("superseded unavailable replica")
        with pytest.raises(AcquireTimeoutError, match="db1:5432 superseded by db2:5432"):
            await bench.manager.acquire()


@pytest.mark.parametrize("end", ["rebuilt", "follows"])
@virtual
async def test_a_superseded_master_returns_when_the_newer_one_answers_otherwise(end: str) -> None:
    async with Bench() as bench:
        new = bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master")
        if end == "follows":
            new.demote(follows=bench["db1"])
            await bench.until_roles("master replica")
        else:
            new.system_identifier = 5
            await bench.until_roles("master foreign")
        async with bench.manager.acquire():
            pass


@virtual
async def test_a_frozen_old_masters_connections_are_terminated_at_once() -> None:
    async with Bench(abandon_timeout=600) as bench:
        held = await bench.manager.acquire()
        bench["db1"].freeze()
        await bench.until_roles("unavailable replica", 3)
        query = start(held.execute("insert"))
        await asyncio.sleep(5)
        assert not query.done()
        began = now()
        bench["db2"].promote()
        with pytest.raises(FakeError):
            await query
        assert now() - began < 1.3
        assert bench.roles == "superseded master"
        await bench.manager.release(held)
        bench["db1"].thaw()
        await asyncio.sleep(5)
        assert bench["db1"].writes == []
        assert bench.roles == "superseded master"
        bench["db1"].demote(follows=bench["db2"])
        await bench.until_roles("replica master")


@virtual
async def test_an_acquire_on_its_way_to_a_superseded_master_goes_to_the_new_one() -> None:
    async with Bench(refresh_delay=0.5) as bench:
        await bench.manager.acquire()  # the one that is idle
        bench["db1"].freeze()
        acquire = start(bench.manager.acquire(timeout=3))
        await asyncio.sleep(0.01)
        bench["db2"].promote()
        connection = await acquire
        assert connection.server is bench["db2"]
        assert now() < 0.8
        assert in_use(bench.manager) == 1
        await bench.manager.release(connection)


@virtual
async def test_a_superseded_pool_is_retired() -> None:
    async with Bench() as bench:
        pool = bench.pool("db1")
        bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master")
        await bench.until(lambda: pool.is_closed, 3)


@virtual
async def test_fencing_can_be_switched_off() -> None:
    async with Bench(fencing=False) as bench:
        held = await bench.manager.acquire()
        bench.network.failover(old_stays=True)
        await bench.until_roles("master master")
        assert not held.is_closed
        await bench.manager.release(held)


@virtual
async def test_a_server_that_refuses_the_rich_probe_is_asked_plainly() -> None:
    bench = Bench(ready=False)
    bench["db1"].refuse_rich_probe = "42501"
    bench["db2"].refuse_rich_probe = "42883"
    async with bench:
        await bench.manager.ready()
        assert bench.roles == "master replica"
        assert str(bench.manager.topology["db1:5432"]).endswith("(tells no timeline: no fencing)")
        asked = len(bench["db1"].log)
        await bench.check()
        assert [entry.text for entry in bench["db1"].log[asked:]] == ["SHOW transaction_read_only"]
        # Tried again on each new connection.
        bench["db1"].refuse_rich_probe = None
        bench["db1"].restart()
        await bench.check()
        assert str(bench.manager.topology["db1:5432"]) == "db1:5432 master"


@virtual
async def test_another_server_behind_the_same_address_begins_a_new_host_pool() -> None:
    async with Bench(replicas=0) as bench:
        old = bench.pool("db1")
        bench["db1"].system_identifier = 5
        await bench.until(lambda: bench.manager.topology["db1:5432"].pool not in (old, None), 1.5)
        assert bench.roles == "master"
        await bench.until(lambda: old.is_closed, 1)


@virtual
async def test_a_name_that_moves_with_its_demoted_master_is_looked_up_again() -> None:
    async with Bench(replicas=0) as bench:
        old, new = bench["db1"], FakeServer("new", timeline=2)
        old.in_recovery = True
        bench.network.servers["db1:5432"] = new
        async with bench.manager.acquire(timeout=2) as connection:
            # The old one may still be the last known master for the first.
            await bench.check()
        async with bench.manager.acquire(timeout=2) as connection:
            assert connection.server is new


@virtual
async def test_while_a_role_is_missing_names_are_looked_up_again() -> None:
    """A ``-rw`` service that led to a standby when the manager started."""
    bench = Bench(replicas=0, ready=False)
    bench["db1"].in_recovery = True
    async with bench:
        await bench.manager.ready()
        old = bench["db1"]
        bench.network.servers["db1:5432"] = FakeServer("new", timeline=2)
        async with bench.manager.acquire(timeout=5) as connection:
            assert connection.server.name == "new"
        assert bench.roles == "master"
        await asyncio.sleep(1)
        assert not old.flows


@pytest.mark.parametrize("trouble", ["standby", "refuses", "silent"])
@virtual
async def test_a_look_that_finds_no_master_changes_nothing(trouble: str) -> None:
    bench = Bench(replicas=0, ready=False)
    old = bench["db1"]
    old.in_recovery = True
    async with bench:
        await bench.manager.ready()
        pools = bench.manager.pools
        new = FakeServer("new", timeline=2)
        bench.network.servers["db1:5432"] = new
        if trouble == "standby":
            new.in_recovery = True
        elif trouble == "refuses":
            new.down()
        else:
            new.freeze()
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire(timeout=20)
        assert bench.roles == "replica"
        assert bench.manager.pools == pools
        # At the pace of connects, as if each opened all that its pool has room for.
        assert 2 <= new.connects <= 20 / CONNECT_GAP
        async with bench.manager.acquire(True) as connection:
            assert connection.server is old
        new.thaw()
        await asyncio.sleep(2)
        assert not new.flows


@virtual
async def test_a_newer_master_that_is_set_read_only_still_supersedes() -> None:
    # As clouds do when its disk is full.
    async with Bench(replicas=1) as bench:
        new = bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master")
        new.read_only = True
        await bench.until_roles("superseded replica")
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire()


@virtual
async def test_a_superseded_master_that_is_set_read_only_serves_no_reads() -> None:
    # As an operator does, who fences it off.
    async with Bench(replicas=2) as bench:
        bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master replica")
        bench["db1"].read_only = True
        await bench.check()
        assert bench.roles == "superseded master replica"


@virtual
async def test_a_masters_address_that_leads_to_a_newer_server_begins_a_new_host_pool() -> None:
    async with Bench(replicas=0) as bench:
        held, soon_idle = [await bench.manager.acquire() for _ in range(2)]
        bench.network.servers["db1:5432"] = FakeServer("new", in_recovery=False, timeline=2)
        pool = bench.pool("db1")
        break_one(reserved(bench.manager, "db1:5432"))
        await bench.until(lambda: bench.manager.topology["db1:5432"].pool not in (pool, None), 3)
        await bench.manager.release(soon_idle)
        async with bench.manager.acquire() as connection:
            assert connection.server.name == "new"
        await bench.manager.release(held)


@virtual
async def test_a_standbys_address_that_leads_to_the_new_master_begins_a_new_host_pool() -> None:
    async with Bench(replicas=1) as bench:
        held = [await bench.manager.acquire(read_only=True) for _ in range(3)]
        bench["db1"].down()
        bench.network.servers["db2:5432"] = FakeServer("new", in_recovery=False, timeline=2)
        break_one(reserved(bench.manager, "db2:5432"))
        await bench.until_roles("superseded master")
        for connection in held:
            await bench.manager.release(connection)
        for _ in range(5):
            async with bench.manager.acquire() as connection:
                assert connection.server.name == "new"
