"""What a manager tells of itself, in which order, and who hears it."""

import asyncio
import gc
import logging
import weakref
from dataclasses import replace

import pytest
from tests.core.conftest import Bench, make, virtual

from pyscopg2.core import events as public
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.events import (
    AcquireTimedOut,
    CheckFailed,
    CheckRecovered,
    ConnectionsTerminated,
    Event,
    EventsDropped,
    HostChanged,
    ManagerClosed,
    ManagerStarted,
    MasterChanged,
    PoolClosed,
    PoolOpened,
    PoolRetired,
)
from pyscopg2.core.events.changes import Changes
from pyscopg2.core.events.listeners import Listeners
from pyscopg2.core.events.stream import EventStream
from pyscopg2.core.topology import Answer, Topology
from pyscopg2.core.topology.host_state import HostState, Observation, Role
from pyscopg2.testing.fake_server import WRONG_PASSWORD, FakeError


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def of(kind: type[Event], events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


@virtual
async def test_the_life_of_a_manager_in_order() -> None:
    heard: list[Event] = []
    async with Bench(replicas=0, ready=False) as bench:
        bench.manager.subscribe(heard.append)
        await bench.manager.ready()
        await bench.manager.close()
    assert names(heard) == [
        "ManagerStarted",
        # It answers, its pool opens meanwhile.
        "HostChanged",
        "HostChanged",
        "MasterChanged",
        "PoolOpened",
        "PoolRetired",
        "PoolClosed",
        "ManagerClosed",
    ]
    assert heard[0] == ManagerStarted(at=heard[0].at, addresses=("db1:5432",))
    assert isinstance(heard[-1], ManagerClosed)
    assert [event.at for event in heard] == sorted(event.at for event in heard)
    opened, retired, closed = heard[4:7]
    assert isinstance(opened, PoolOpened)
    assert isinstance(retired, PoolRetired)
    assert isinstance(closed, PoolClosed)
    assert opened.pool is retired.pool is closed.pool
    assert (retired.why, closed.why) == ("the manager closes", "nothing was in use any more")


@virtual
async def test_a_failover_in_order() -> None:
    heard: list[Event] = []
    async with Bench(replicas=1) as bench:
        connection = await bench.manager.acquire()
        bench.manager.subscribe(heard.append)
        bench.network.failover(old_stays=True)
        await bench.until(lambda: bool(of(PoolRetired, heard)), 2)
        told = [event for event in heard if not isinstance(event, PoolClosed)]
        assert names(told) == [
            # The replica answers as the master, the old one is superseded: one step.
            "HostChanged",
            "HostChanged",
            "MasterChanged",
            "ConnectionsTerminated",
            # The old one's next check takes its pool.
            "HostChanged",
            "PoolRetired",
        ]
        first, second, master, terminated, _, retired = told
        assert isinstance(first, HostChanged)
        assert isinstance(second, HostChanged)
        assert [first.address, second.address] == ["db1:5432", "db2:5432"]
        assert (first.before.role.value, first.after.role.value) == ("master", "superseded")
        assert isinstance(master, MasterChanged)
        assert (master.before, master.after) == ("db1:5432", "db2:5432")
        assert isinstance(terminated, ConnectionsTerminated)
        assert (terminated.address, terminated.count) == ("db1:5432", 1)
        assert terminated.why == "db1:5432 is superseded by db2:5432"
        assert isinstance(retired, PoolRetired)
        await bench.manager.release(connection)


@virtual
async def test_a_master_that_is_lost_and_comes_back() -> None:
    heard: list[Event] = []
    async with Bench(replicas=0) as bench:
        bench.manager.subscribe(heard.append)
        bench["db1"].down()
        await bench.until_roles("unavailable")
        await asyncio.sleep(1)
        bench["db1"].up()
        await bench.until_roles("master")
        masters = [(e.before, e.after) for e in heard if isinstance(e, MasterChanged)]
        assert masters == [("db1:5432", None), (None, "db1:5432")]
        failed = [e for e in heard if isinstance(e, CheckFailed)]
        assert len(failed) > 1
        assert failed[0].error is not None
        assert "connection refused" in failed[0].reason
        (recovered,) = (e for e in heard if isinstance(e, CheckRecovered))
        assert recovered.failures == len(failed)
        assert 1 < recovered.failed_for < 3
        # The check comes before what it finds.
        assert names(heard)[:3] == ["CheckFailed", "HostChanged", "MasterChanged"]


@virtual
async def test_who_comes_during_an_outage_hears_how_long_it_was() -> None:
    heard: list[Event] = []
    async with Bench(replicas=0) as bench:
        bench["db1"].down()
        await bench.until_roles("unavailable")
        await asyncio.sleep(3)
        bench.manager.subscribe(heard.append)
        bench["db1"].up()
        await bench.until_roles("master")
        (recovered,) = (e for e in heard if isinstance(e, CheckRecovered))
        assert recovered.failed_for > 3


@virtual
async def test_a_check_that_finds_the_same_tells_nothing() -> None:
    heard: list[Event] = []
    async with Bench(replicas=1) as bench:
        bench.manager.subscribe(heard.append)
        for _ in range(5):
            await bench.check()
        assert heard == []


@virtual
async def test_a_pool_is_told_of_before_anybody_has_a_connection_of_it() -> None:
    async with Bench(replicas=0, ready=False) as bench:
        order: list[str] = []

        def listener(event: Event) -> None:
            if isinstance(event, PoolOpened):
                order.append("opened")
                # It finds the manager as everybody else does.
                assert bench.manager.topology.masters[0].pool is event.pool

        async def use() -> None:
            async with bench.manager.acquire(timeout=5):
                order.append("used")

        bench.manager.subscribe(listener)
        await asyncio.gather(use(), use())
        assert order == ["opened", "used", "used"]


@virtual
async def test_a_timed_out_acquire_is_told_with_what_it_says() -> None:
    heard: list[Event] = []
    async with Bench(replicas=0, size=1) as bench:
        held = await bench.manager.acquire()
        bench.manager.subscribe(heard.append)
        with pytest.raises(AcquireTimeoutError) as caught:
            await bench.manager.acquire(timeout=0.5)
        (event,) = heard
        assert isinstance(event, AcquireTimedOut)
        assert event.timeout == 0.5
        assert event.explanation.asked == "a master"
        assert str(event.explanation.hosts[0]) in str(caught.value)
        await bench.manager.release(held)


@virtual
async def test_a_wrong_password_is_told_as_hopeless() -> None:
    heard: list[Event] = []
    async with Bench(replicas=0, ready=False) as bench:
        bench["db1"].refuse_connects = WRONG_PASSWORD
        bench.manager.subscribe(heard.append)
        with pytest.raises(Exception, match="no use in waiting"):
            await bench.manager.ready()
        failed = of(CheckFailed, heard)
        assert failed
        assert all(isinstance(event, CheckFailed) and event.hopeless for event in failed)


@virtual
async def test_what_is_unanswered_at_its_end_is_told() -> None:
    heard: list[Event] = []
    async with Bench(replicas=0) as bench:
        bench.manager.subscribe(heard.append)
        connection = await bench.manager.acquire()
        bench["db1"].freeze()
        with pytest.raises(FakeError):
            await bench.manager.release(connection)
        terminated = of(ConnectionsTerminated, heard)
        assert [str(event) for event in terminated] == [
            "db1:5432: 1 connections terminated: no answer at its end"
        ]
        bench["db1"].thaw()


def test_a_pool_that_takes_anothers_place_is_told_of_after_that_one_is_retired() -> None:
    heard: list[Event] = []
    listeners = Listeners()
    listeners.subscribe(heard.append)
    topology = Topology.of(("a",)).settle()
    changes = Changes(listeners, topology)
    first, second = object(), object()
    for serial, pool in enumerate((first, second), 1):
        answer = Answer(False, False, 100, 1, 42)
        after = topology.apply(Observation("a", serial, at=1.0, answer=answer, pool=pool))
        changes.follow(after, after.changes(topology))
        listeners.flush()
        topology = after
    pools = [e for e in heard if isinstance(e, PoolOpened | PoolRetired)]
    assert names([*pools]) == ["PoolOpened", "PoolRetired", "PoolOpened"]
    assert [each.pool for each in pools] == [first, first, second]


# Those who listen


@virtual
async def test_a_listener_that_raises_is_logged_once_and_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[Event] = []

    def fails(event: Event) -> None:
        raise BaseExceptionGroup("all of it", [asyncio.CancelledError()])

    async with Bench(replicas=1, ready=False) as bench:
        bench.manager.subscribe(fails)
        bench.manager.subscribe(heard.append)
        await bench.manager.ready()
        assert len(heard) > 3
        errors = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert len(errors) == 1
        assert "a listener failed" in errors[0].getMessage()


@virtual
async def test_a_listener_may_use_the_manager() -> None:
    heard: list[Event] = []
    async with Bench(replicas=1) as bench:
        manager = bench.manager

        def forgets(event: Event) -> None:
            if isinstance(event, MasterChanged) and event.after == "db2:5432":
                assert manager.stats().failovers == 1
                assert manager.explain().serves
                manager.forget(event.after)

        manager.subscribe(forgets)
        manager.subscribe(heard.append)
        bench.network.failover()
        await bench.until(lambda: manager.stats().failovers == 1, 2)
        # What happened while it was told comes after it, also for the next listener.
        kinds = names(heard)
        forgotten = next(
            n
            for n, event in enumerate(heard)
            if isinstance(event, HostChanged) and event.after.role.value == "unknown"
        )
        assert "MasterChanged" in kinds[:forgotten]
        changed = [e.after for e in heard if isinstance(e, MasterChanged)]
        assert changed[:3] == [None, "db2:5432", None]


@virtual
async def test_who_unsubscribes_hears_nothing_more() -> None:
    heard: list[Event] = []
    async with Bench(replicas=0, ready=False) as bench:
        unsubscribe = bench.manager.subscribe(heard.append)
        unsubscribe()
        unsubscribe()
        await bench.manager.ready()
        assert heard == []


def test_who_is_unsubscribed_by_another_is_not_told_of_that_event() -> None:
    listeners = Listeners()
    heard: list[Event] = []
    listeners.subscribe(lambda _: unsubscribe())
    unsubscribe = listeners.subscribe(heard.append)
    listeners.tell(ManagerClosed())
    assert heard == []
    assert listeners


# Streams


@virtual
async def test_a_stream_tells_from_when_it_was_made_until_the_manager_is_closed() -> None:
    manager = make()
    stream = manager.events()
    await manager.ready()
    await manager.close()
    heard = [event async for event in stream]
    assert names(heard)[0] == "ManagerStarted"
    assert names(heard)[-1] == "ManagerClosed"


@virtual
async def test_a_stream_waits_for_the_next_event() -> None:
    async with Bench(replicas=0) as bench:
        stream = bench.manager.events()
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(3)
        assert not waiting.done()
        with pytest.raises(RuntimeError, match="one reader"):
            await anext(stream)
        bench["db1"].down()
        assert isinstance(await waiting, CheckFailed)
        # Cancelled, it can be read on.
        with pytest.raises(TimeoutError):
            while True:
                await asyncio.wait_for(anext(stream), 0.01)
        bench["db1"].up()
        await bench.until_roles("master")
        assert isinstance(await anext(stream), CheckFailed | CheckRecovered)
        stream.close()


@virtual
async def test_a_stream_that_is_read_too_late_says_how_many_are_missing() -> None:
    listeners = Listeners()
    stream = EventStream(listeners, 3)
    for number in range(10):
        listeners.tell(ManagerStarted(addresses=(str(number),)))
    dropped = await anext(stream)
    assert isinstance(dropped, EventsDropped)
    assert dropped.count == 7
    assert str(await anext(stream)) == "started: 7"
    listeners.tell(ManagerClosed())
    assert [str(event) async for event in stream] == ["started: 8", "started: 9", "closed"]


@virtual
async def test_a_stream_that_is_closed_can_be_read_to_its_end() -> None:
    listeners = Listeners()
    stream = EventStream(listeners, 3)
    listeners.tell(ManagerStarted(addresses=()))
    stream.close()
    assert not listeners
    assert names([event async for event in stream]) == ["ManagerStarted"]


def test_a_stream_that_nobody_holds_ends() -> None:
    listeners = Listeners()
    stream = EventStream(listeners, 3)
    alive = weakref.ref(stream)
    assert listeners
    del stream
    assert alive() is None
    assert not listeners


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "5"])
def test_a_limit_is_a_number(limit: object) -> None:
    with pytest.raises((TypeError, ValueError), match="limit"):
        make().events(limit)  # type: ignore[arg-type]


def test_nothing_is_left_of_a_hundred_thousand_events_and_a_thousand_subscriptions() -> None:
    listeners = Listeners()
    heard = 0

    def hear(_: Event) -> None:
        nonlocal heard
        heard += 1

    def subscribe_and_tell(events: int) -> None:
        unsubscribe = listeners.subscribe(hear)
        stream = EventStream(listeners, 10)
        for _ in range(events):
            listeners.tell(ManagerClosed())
        unsubscribe()
        stream.close()

    def go(subscriptions: int, events: int) -> int:
        for _ in range(subscriptions):
            subscribe_and_tell(events)
        gc.collect()
        return len(gc.get_objects())

    before = go(10, 100)
    after = go(1000, 100)
    assert heard == 101_000
    assert after <= before


@pytest.mark.parametrize("kind", Event.__subclasses__(), ids=lambda kind: kind.__name__)
def test_each_event_is_public_frozen_and_says_what_it_is(kind: type[Event]) -> None:
    assert kind.__name__ in public.__all__
    assert kind.__str__ is not object.__str__
    assert kind.__doc__


def test_a_change_tells_of_the_role_that_was_where_it_is_another() -> None:
    master = HostState("db1:5432", Role.MASTER)
    replica = HostState("db1:5432", Role.REPLICA)
    assert str(HostChanged(before=replica, after=master)) == "db1:5432 master (was replica)"
    overdue = replace(master, overdue=True)
    told = str(HostChanged(before=master, after=overdue))
    assert told == "db1:5432 master (overdue with its check)"
