"""Reads that want their replica to be fresh: who serves them, who waits, and what is asked."""

import asyncio
import logging
import math
from typing import Any

import pytest
from tests.core.conftest import Bench, break_one, in_use, now, reserved, start, virtual

from pyscopg2.balancer_policy import BalancerPolicy
from pyscopg2.core.checkout.bound import Bound
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.monitoring.attention import KEPT_TIME, MISSING_GAP
from pyscopg2.core.topology.freshness import Freshness
from pyscopg2.core.wal import WalPosition
from pyscopg2.testing.fake import FakeConnection
from pyscopg2.testing.fake_server import FakeServer

SYSTEM = FakeServer().system_identifier
OLD, NEW = "0/3000148", "0/3000200"
ELSEWHERE = "10.0.0.9:5432"
"""What a server knows as its own address, where that is not the one that was dialled."""

LATER = WalPosition(SYSTEM, 1, 0x3000200)


def commit(bench: Bench, lsn: str = NEW) -> None:
    """The master commits something; no replica has replayed it."""
    bench["db1"].lsn = lsn
    bench["db1"].snapshot += 1


def replay(bench: Bench, *names: str, lsn: str = NEW) -> None:
    for name in names:
        bench[name].lsn = lsn


def resets(server: FakeServer) -> int:
    """How many connections were given back."""
    return sum(entry.text == "reset" for entry in server.log)


async def name_of(bench: Bench, **bound: Any) -> str:
    """The host that serves a read."""
    async with bench.manager.acquire_replica(**bound) as connection:
        return connection.server.name


async def waited(bench: Bench, **bound: Any) -> float:
    """Seconds that a read waits for its connection."""
    began = now()
    connection = await bench.manager.acquire_replica(**bound)
    seconds = now() - began
    await bench.manager.release(connection)
    return seconds


# What a bound demands


def test_what_a_bound_demands() -> None:
    known = Freshness(moment=5.0)
    assert Bound().is_met(Freshness(reason="unknown"), 100)
    assert Bound(max_lag=1).is_met(known, 6.0)
    assert not Bound(max_lag=1).is_met(known, 6.01)
    assert Bound(since=5.0).is_met(known, 100)
    assert not Bound(since=5.01).is_met(known, 100)
    assert not Bound(after=LATER).is_met(known, 5.0)
    assert not Bound(max_lag=1000).is_met(Freshness(reason="unknown"), 0)


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (Bound(max_lag=2.0), "at most 2 s behind"),
        (Bound(after=LATER), "not behind a write of its own"),
        (Bound(since=1.0), "not behind a write of its own"),
        (Bound(0.5, LATER), "at most 0.5 s behind and not behind a write of its own"),
    ],
)
def test_a_bound_in_words(bound: Bound, words: str) -> None:
    assert bound.describe() == words


@virtual
async def test_a_lag_is_as_of_when_the_master_was_asked() -> None:
    """What was committed between the question and the answer may be behind what that tells."""
    async with Bench(replicas=1, refresh_delay=30, refresh_timeout=5) as bench:
        bench["db1"].latency = 0.5
        await bench.check()
        assert "db2:5432 replica, 0.5 s behind at most" in str(bench.manager.topology)


# Who serves


@virtual
async def test_a_bounded_read_is_served_by_what_is_proven() -> None:
    async with Bench(replicas=2, refresh_delay=0.5) as bench:
        commit(bench)
        replay(bench, "db3")
        await asyncio.sleep(2)
        for _ in range(20):
            assert await name_of(bench, max_lag=1.0) == "db3"
        assert {await name_of(bench) for _ in range(20)} == {"db2", "db3"}
        assert {await name_of(bench, max_lag=math.inf) for _ in range(20)} == {"db2", "db3"}
        assert await name_of(bench, after=LATER) == "db3"
        assert await name_of(bench, after=str(LATER)) == "db3"


@virtual
async def test_the_default_of_the_manager_is_for_reads() -> None:
    async with Bench(replicas=2, refresh_delay=0.5, max_lag=1.0) as bench:
        commit(bench)
        replay(bench, "db3")
        await asyncio.sleep(2)
        for _ in range(20):
            assert await name_of(bench) == "db3"
            async with bench.manager.acquire(True) as connection:
                assert connection.server.name == "db3"
        assert {await name_of(bench, max_lag=math.inf) for _ in range(20)} == {"db2", "db3"}
        async with bench.manager.acquire_master() as connection:
            assert connection.server.name == "db1"


@virtual
async def test_where_none_is_proven_a_master_serves_if_it_may() -> None:
    async with Bench(replicas=2, refresh_delay=0.5) as bench:
        commit(bench)
        began = now()
        assert await name_of(bench, after=LATER, fallback_master=True) == "db1"
        assert now() - began < 0.01
        began = now()
        assert await name_of(bench, after=LATER, fallback_master=True, patience=0.3) == "db1"
        assert 0.3 <= now() - began < 0.31
        replay(bench, "db2")
        began = now()
        assert await name_of(bench, after=LATER, fallback_master=True, patience=0.3) == "db2"
        assert now() - began < 0.1
        with pytest.raises(AcquireTimeoutError):
            await name_of(bench, after=WalPosition(SYSTEM, 1, 2**40), timeout=0.2)


@virtual
async def test_with_weight_the_master_is_one_of_those_that_are_proven() -> None:
    async with Bench(replicas=2, refresh_delay=0.5) as bench:
        commit(bench)
        replay(bench, "db3")
        await asyncio.sleep(2)
        served = {
            await name_of(bench, max_lag=1.0, master_as_replica_weight=1.0) for _ in range(50)
        }
        assert served == {"db1", "db3"}


@virtual
async def test_where_there_is_no_replica_a_master_serves_at_once() -> None:
    async with Bench(replicas=0) as bench:
        began = now()
        assert await name_of(bench, max_lag=1, fallback_master=True, patience=5) == "db1"
        assert now() - began < 0.01


# Waiting


@virtual
async def test_a_read_waits_for_its_replica_and_has_it_asked() -> None:
    async with Bench(replicas=2, refresh_delay=30) as bench:
        commit(bench)
        waiting = start(name_of(bench, after=LATER, timeout=10))
        await asyncio.sleep(2)
        assert not waiting.done()
        replay(bench, "db2")
        began = now()
        assert await waiting == "db2"
        assert now() - began < 2 * MISSING_GAP


@virtual
async def test_one_who_can_not_be_served_holds_nobody_up() -> None:
    async with Bench(replicas=1, refresh_delay=0.5, size=1) as bench:
        taken = await bench.manager.acquire_replica()
        late = start(name_of(bench, after=LATER, timeout=5))
        await asyncio.sleep(0.1)
        fresh = start(name_of(bench, max_lag=2.0, timeout=5))
        any_one = start(name_of(bench, timeout=5))
        await asyncio.sleep(0.1)
        await bench.manager.release(taken)
        assert await fresh == "db2"
        assert await any_one == "db2"
        assert not late.done()
        commit(bench)
        replay(bench, "db2")
        assert await late == "db2"


@virtual
async def test_who_waits_for_a_full_host_holds_nobody_up() -> None:
    """The first waits for db2, which is fresh and full; db3 can serve the second alone."""
    middle = "0/3000180"
    async with Bench(replicas=2, refresh_delay=0.2, size=1) as bench:
        taken = await bench.manager.acquire_from_pool(bench.pool("db2"))
        commit(bench)
        replay(bench, "db2")
        await asyncio.sleep(2)
        fresh = start(name_of(bench, max_lag=1, timeout=9))
        written = WalPosition(SYSTEM, 1, 0x3000180)
        second = start(name_of(bench, after=written, timeout=9))
        await asyncio.sleep(1)
        assert not second.done()
        replay(bench, "db3", lsn=middle)
        began = now()
        assert await second == "db3"
        assert now() - began < 0.3
        assert not fresh.done()
        await bench.manager.release(taken)
        assert await fresh == "db2"


@virtual
async def test_no_more_bounded_reads_are_served_than_there_are_slots() -> None:
    async with Bench(replicas=1, refresh_delay=0.5, size=1) as bench:
        taken = await bench.manager.acquire_replica()
        waiting = start(name_of(bench, max_lag=2, timeout=9))
        await asyncio.sleep(1)
        assert in_use(bench.manager) == 1
        with pytest.raises(AcquireTimeoutError, match="1 of 1 in use, 2 waiting"):
            await name_of(bench, max_lag=2, timeout=0.5)
        await bench.manager.release(taken)
        assert await waiting == "db2"


@virtual
async def test_a_slot_is_not_handed_to_whom_its_host_can_not_serve() -> None:
    async with Bench(replicas=1, refresh_delay=0.5, size=1) as bench:
        taken = await bench.manager.acquire_replica()
        waiting = start(name_of(bench, after=LATER, timeout=9))
        await asyncio.sleep(0.1)
        before = resets(bench["db2"])
        await bench.manager.release(taken)
        await asyncio.sleep(1)
        assert resets(bench["db2"]) == before + 1
        assert in_use(bench.manager) == 0
        commit(bench)
        replay(bench, "db2")
        assert await waiting == "db2"


@virtual
async def test_who_waits_for_a_slot_is_served_however_old_the_proof_has_become() -> None:
    async with Bench(replicas=1, refresh_delay=30, size=1) as bench:
        taken = await bench.manager.acquire_replica()
        waiting = start(name_of(bench, max_lag=0.6, timeout=29))
        await asyncio.sleep(10)
        await bench.manager.release(taken)
        began = now()
        assert await waiting == "db2"
        assert now() - began < 0.2


@virtual
async def test_who_waits_for_a_slot_alone_has_no_proofs_asked_for() -> None:
    async with Bench(replicas=1, refresh_delay=30, size=1) as bench:
        taken = await bench.manager.acquire_replica()
        waiting = start(name_of(bench, after=LATER, timeout=29))
        await asyncio.sleep(1)
        commit(bench)
        replay(bench, "db2")
        await asyncio.sleep(1)
        before = bench["db2"].queries
        await asyncio.sleep(10)
        assert bench["db2"].queries - before <= 21
        await bench.manager.release(taken)
        assert await waiting == "db2"


@virtual
async def test_at_most_twenty_checks_a_second_however_many_wait() -> None:
    async with Bench(replicas=2, refresh_delay=1.0) as bench:
        commit(bench)
        before = {name: bench[name].queries for name in ("db1", "db2", "db3")}
        waiting = [start(name_of(bench, after=LATER, timeout=10)) for _ in range(100)]
        await asyncio.sleep(5)
        for name, count in before.items():
            assert 40 <= bench[name].queries - count <= 101, "each host, for all who wait"
        replay(bench, "db2", "db3")
        await asyncio.gather(*waiting)
        await asyncio.sleep(2)
        before = {name: bench[name].queries for name in before}
        await asyncio.sleep(10)
        for name, count in before.items():
            assert bench[name].queries - count <= 12, "nobody waits any more"


@virtual
async def test_reads_with_a_small_bound_keep_the_proofs_coming() -> None:
    async with Bench(replicas=1, refresh_delay=1.0) as bench:
        longest = 0.0
        for _ in range(100):
            began = now()
            assert await name_of(bench, max_lag=0.3) == "db2"
            longest = max(longest, now() - began)
            await asyncio.sleep(0.05)
        assert longest < 0.15
        await asyncio.sleep(KEPT_TIME + 1)
        before = bench["db2"].queries
        await asyncio.sleep(10)
        assert bench["db2"].queries - before <= 12


@virtual
async def test_who_reads_with_a_small_bound_again_and_again_need_not_wait() -> None:
    async with Bench(replicas=1, refresh_delay=30) as bench:
        assert await name_of(bench, max_lag=0.5) == "db2"
        for _ in range(100):
            await asyncio.sleep(0.05)
            assert await waited(bench, max_lag=0.5) == 0


@virtual
async def test_who_reads_with_a_larger_bound_costs_them_nothing() -> None:
    async with Bench(replicas=1, refresh_delay=30) as bench:
        await waited(bench, max_lag=0.3)
        for _ in range(20):
            assert await waited(bench, max_lag=20) == 0
            await asyncio.sleep(0.4)
            assert await waited(bench, max_lag=0.3) == 0


@virtual
async def test_reads_with_a_large_bound_keep_no_small_one() -> None:
    async with Bench(replicas=1, refresh_delay=30) as bench:
        await waited(bench, max_lag=0.3)
        before = 0
        for number in range(120):
            await waited(bench, max_lag=60)
            await asyncio.sleep(0.1)
            if number == 20:
                before = bench["db2"].queries
        assert bench["db2"].queries - before <= 2


@virtual
async def test_a_tiny_bound_costs_twenty_checks_a_second() -> None:
    async with Bench(replicas=1, refresh_delay=30) as bench:
        before, until = bench["db2"].queries, now() + 5
        while now() < until:
            await waited(bench, max_lag=0.06)
            await asyncio.sleep(0.001)
        assert 50 <= bench["db2"].queries - before <= 101


@virtual
async def test_hosts_that_are_down_are_not_dialled_for_a_proof() -> None:
    async with Bench(replicas=2, refresh_delay=30) as bench:
        bench["db3"].down()
        await bench.check()
        before = bench["db3"].connects
        with pytest.raises(AcquireTimeoutError):
            await name_of(bench, max_lag=0.01, after=LATER, timeout=5)
        assert bench["db3"].connects - before <= 2


@virtual
async def test_out_of_time_it_says_how_far_behind_each_is() -> None:
    async with Bench(replicas=2, refresh_delay=0.5) as bench:
        commit(bench)
        replay(bench, "db3")
        await asyncio.sleep(5)
        bench["db3"].timeline = 0
        await asyncio.sleep(1)
        with pytest.raises(AcquireTimeoutError) as told:
            await name_of(bench, max_lag=0.3, timeout=1)
        text = str(told.value)
        assert text.startswith("no connection to a replica at most 0.3 s behind within 1 s: ")
        assert "db2:5432 replica: " in text
        assert "s behind at most" in text
        assert "db3:5432 replica: not known how far behind: last seen on timeline 0" in text
        assert in_use(bench.manager) == 0


# What is asked for


@virtual
async def test_a_position_of_another_system_is_a_value_error() -> None:
    async with Bench() as bench:
        with pytest.raises(ValueError, match=f"of system 43, and the hosts are of {SYSTEM}"):
            await name_of(bench, after=WalPosition(43, 1, 1), timeout=5)
        assert in_use(bench.manager) == 0


@virtual
async def test_those_who_wait_hear_that_theirs_is_of_another_system() -> None:
    async with Bench(ready=False) as bench:
        waiting = start(name_of(bench, after=WalPosition(43, 1, 1), timeout=5))
        with pytest.raises(ValueError, match="of system 43"):
            await waiting
        assert now() < 1


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_lag": 0}, ValueError, "max_lag must be above 0"),
        ({"max_lag": "1"}, TypeError, "max_lag must be a number"),
        ({"max_lag": math.nan}, ValueError, "max_lag"),
        ({"after": "nonsense"}, ValueError, "not the text of a WAL position"),
        ({"after": 5}, TypeError, "after must be a WalPosition or its text, not int"),
        ({"patience": 1, "max_lag": 1}, ValueError, "patience is for reads that a master may"),
        ({"patience": -1, "fallback_master": True}, ValueError, "patience must be at least 0"),
    ],
)
@virtual
async def test_what_is_wrong_is_said_at_once(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    async with Bench() as bench:
        with pytest.raises(error, match=text):
            bench.manager.acquire_replica(**arguments)
        with pytest.raises(error, match=text):
            bench.manager.acquire(True, **arguments)


@pytest.mark.parametrize("name", ["max_lag", "after", "patience"])
@virtual
async def test_what_is_for_reads_is_refused_for_writes(name: str) -> None:
    async with Bench() as bench:
        given: dict[str, Any] = {name: 1}
        with pytest.raises(ValueError, match="are for reads"):
            bench.manager.acquire(**given)


# What changes meanwhile


@virtual
async def test_a_host_whose_connection_was_lost_is_asked_first() -> None:
    async with Bench(replicas=1, refresh_delay=30) as bench:
        break_one(reserved(bench.manager, "db2:5432"))
        asked, connects = bench["db2"].queries, bench["db2"].connects
        assert await name_of(bench, max_lag=60) == "db2"
        assert bench["db2"].queries > asked
        assert bench["db2"].connects == connects + 1, "the monitor's, and none that is thrown away"
        assert in_use(bench.manager) == 0


@virtual
async def test_a_bound_that_is_not_kept_any_more_after_a_slow_connect() -> None:
    async with Bench(replicas=2, refresh_delay=0.2, acquire_timeout=5) as bench:
        taken = [await bench.manager.acquire_replica() for _ in range(2)]
        assert {each.server.name for each in taken} == {"db2", "db3"}
        commit(bench)
        replay(bench, "db2")
        await asyncio.sleep(1)
        bench["db2"].latency = 0.5
        reading = start(bench.manager.acquire_replica(after=LATER).__aenter__())
        await asyncio.sleep(0.2)
        bench["db2"].latency = 0.001
        bench["db2"].timeline = 0
        replay(bench, "db3")
        await asyncio.sleep(0.4)
        connection: FakeConnection = await reading
        assert connection.server.name == "db3"
        for each in (connection, *taken):
            await bench.manager.release(each)
        await asyncio.sleep(0.1)
        assert in_use(bench.manager) == 0


@virtual
async def test_a_connection_that_comes_too_late_for_its_bound_goes_back() -> None:
    """To connect takes long, while the host's checks are answered: it has less than it had."""
    async with Bench(replicas=2, refresh_delay=0.1, acquire_timeout=5, size=2) as bench:
        taken = [await bench.manager.acquire_replica() for _ in range(2)]
        assert {each.server.name for each in taken} == {"db2", "db3"}
        commit(bench)
        replay(bench, "db2")
        await asyncio.sleep(1)
        bench["db2"].round_trips = 400
        reading = start(bench.manager.acquire_replica(after=LATER).__aenter__())
        await asyncio.sleep(0.1)
        replay(bench, "db2", lsn=OLD)
        replay(bench, "db3")
        connection: FakeConnection = await reading
        assert connection.server.name == "db3"
        assert 0.4 <= now() - 1 < 0.7
        for each in (connection, *taken):
            await bench.manager.release(each)
        await asyncio.sleep(0.1)
        assert in_use(bench.manager) == 0
        assert not bench.pool("db2").out


@virtual
async def test_cancelled_while_it_asks_where_its_connection_leads_it_gives_that_back() -> None:
    async with Bench(replicas=1, refresh_delay=30) as bench:
        bench["db2"].address = ELSEWHERE
        await bench.check()
        asked = bench["db2"].queries
        reading = start(bench.manager.acquire_replica(max_lag=60))
        await bench.until(lambda: bench["db2"].queries > asked, within=1)
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()
        await asyncio.sleep(0.1)
        assert in_use(bench.manager) == 0
        assert not bench.pool("db2").out


@virtual
async def test_after_a_promotion_positions_of_the_old_timeline_are_covered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "pyscopg2")
    async with Bench(replicas=2, refresh_delay=0.2) as bench:
        lost = WalPosition(SYSTEM, 1, 2**40)
        bench["db1"].down()
        bench["db2"].promote()
        await bench.until_roles("superseded master replica")
        kept = WalPosition(SYSTEM, 1, 0x3000100)
        assert await name_of(bench, after=kept, fallback_master=True) == "db2"
        assert "beyond" not in caplog.text
        assert await name_of(bench, after=lost, fallback_master=True) == "db2"
        with pytest.raises(AcquireTimeoutError):
            await name_of(bench, after=lost, timeout=0.5)
        bench["db3"].timeline = 2
        for _ in range(3):
            assert await name_of(bench, after=lost) == "db3"
    (warning,) = [r.getMessage() for r in caplog.records if "beyond" in r.getMessage()]
    assert warning == f"position {lost} is beyond where timeline 2 began: that write may be lost"


@virtual
async def test_a_policy_sees_the_lag_of_each_candidate() -> None:
    seen: dict[str, float | None] = {}

    class Fresher(BalancerPolicy):
        def choose(self, candidates: Any) -> Any:
            seen.update({each.address: each.lag for each in candidates})
            return min(candidates, key=lambda each: (each.lag is None, each.lag))

    async with Bench(replicas=2, refresh_delay=0.2, balancer_policy=Fresher()) as bench:
        commit(bench)
        replay(bench, "db3")
        await asyncio.sleep(2)
        for _ in range(10):
            assert await name_of(bench) == "db3"
        bench["db2"].timeline = 0
        await asyncio.sleep(1)
        assert await name_of(bench, master_as_replica_weight=1.0) == "db1"
        assert seen["db1:5432"] == 0.0
        assert seen["db2:5432"] is None
        assert 0 < (seen["db3:5432"] or 0) < 1


# Behind an address that may lead to several servers


@virtual
async def test_behind_a_service_the_server_that_was_reached_is_asked() -> None:
    async with Bench(replicas=1, refresh_delay=0.5) as bench:
        server = bench["db2"]
        server.address = ELSEWHERE
        await asyncio.sleep(1)
        for _ in range(5):
            before = server.queries
            assert await name_of(bench, max_lag=2.0) == "db2"
            assert server.queries == before + 1
            before = server.queries
            assert await name_of(bench) == "db2"
            assert server.queries == before
        assert "s behind at most, where its address leads now" in str(bench.manager.topology)


@virtual
async def test_behind_a_service_one_that_is_late_is_not_used() -> None:
    async with Bench(replicas=1, refresh_delay=0.5) as bench:
        prompt = bench["db2"]
        prompt.address = ELSEWHERE
        commit(bench)
        replay(bench, "db2")
        await asyncio.sleep(2)
        taken = await bench.manager.acquire_replica(max_lag=2.0)
        late = FakeServer("late", in_recovery=True, address="10.0.0.10:5432", lsn=OLD)
        bench.network.servers["db2:5432"] = late
        with pytest.raises(AcquireTimeoutError):
            await name_of(bench, after=LATER, timeout=2)
        assert late.connects > 0
        assert await name_of(bench, after=LATER, fallback_master=True) == "db1"
        late.lsn = NEW
        assert await name_of(bench, after=LATER, timeout=2) == "late"
        bench.network.servers["db2:5432"] = prompt
        await bench.manager.release(taken)
        late.break_connections()
        await asyncio.sleep(0.5)
        assert in_use(bench.manager) == 0


@pytest.mark.parametrize("how", ["cancelled", "out of time", "broken"])
@virtual
async def test_asked_there_it_is_given_back_whatever_happens(how: str) -> None:
    async with Bench(replicas=1, refresh_delay=5, refresh_timeout=5) as bench:
        server = bench["db2"]
        server.address = ELSEWHERE
        await bench.check()
        asked = server.queries
        server.latency = 2.0
        reading = start(name_of(bench, max_lag=20, timeout=1))
        await bench.until(lambda: server.queries > asked, within=3)
        if how == "cancelled":
            reading.cancel()
        elif how == "broken":
            server.break_connections()
        server.latency = 0.001
        began = now()
        await asyncio.wait([reading])
        assert now() - began < 1.1
        if how == "cancelled":
            assert reading.cancelled()
        elif how == "out of time":
            assert isinstance(reading.exception(), AcquireTimeoutError)
        await asyncio.sleep(3)
        assert in_use(bench.manager) == 0


@virtual
async def test_a_server_of_its_own_is_not_asked_though_another_one_is() -> None:
    async with Bench(replicas=2, refresh_delay=0.5) as bench:
        bench["db3"].address = ELSEWHERE
        await asyncio.sleep(1)
        served: set[str] = set()
        for _ in range(20):
            before = {name: bench[name].queries for name in ("db2", "db3")}
            name = await name_of(bench, max_lag=5.0)
            served.add(name)
            assert bench[name].queries - before[name] == (name == "db3")
        assert served == {"db2", "db3"}


@virtual
async def test_an_answer_that_the_users_codecs_have_changed_tells_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Bench(replicas=1, refresh_delay=0.5) as bench:
        bench["db2"].address = ELSEWHERE
        await asyncio.sleep(1)

        async def changed(*_: object) -> object:
            return "changed"

        with monkeypatch.context() as patch:
            patch.setattr(bench.adapter, "fetch_scalar", changed)
            with pytest.raises(AcquireTimeoutError):
                await name_of(bench, max_lag=5.0, timeout=1)
        assert await name_of(bench, max_lag=5.0, timeout=2) == "db2"
        assert in_use(bench.manager) == 0
