import asyncio
import logging

import pytest
from tests.core.conftest import start, virtual

from pyscopg2.core.topology import Topology
from pyscopg2.core.topology.host_state import Observation
from pyscopg2.core.topology.role_query import Answer
from pyscopg2.core.topology.store import Store
from pyscopg2.testing.virtual_time import settle

MASTER = Answer(False, False, 1, 1)


def make_store() -> Store:
    return Store(Topology.of(("a", "b")).settle())


def see(store: Store, address: str = "a") -> None:
    serial = store.next_serial()
    store.publish(Observation(address, serial, at=serial, answer=MASTER, pool=store))


def masters(count: int, topology: Topology) -> bool:
    return len(topology.masters) >= count


def one(topology: Topology) -> bool:
    return masters(1, topology)


def two(topology: Topology) -> bool:
    return masters(2, topology)


def test_serials_rise() -> None:
    store = make_store()
    assert store.next_serial() < store.next_serial()


def test_listeners_hear_of_each_publish_in_order_before_those_who_wait() -> None:
    store = make_store()
    heard: list[str] = []

    @virtual
    async def main() -> None:
        waiting = start(store.wait_for(one))
        waiting.add_done_callback(lambda _: heard.append("waiter"))
        await settle()
        store.subscribe(lambda after, changes: heard.append(f"{after}, {len(changes)} new"))
        store.subscribe(lambda after, _: heard.append("second"))
        see(store)
        await waiting

    main()
    assert heard == [f"{store.topology}, 1 new", "second", "waiter"]


def test_a_listener_that_fails_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    store = make_store()
    heard: list[object] = []

    def fail(after: object, changes: object) -> None:
        raise RuntimeError("oh")

    store.subscribe(fail)
    store.subscribe(lambda after, _: heard.append(after))
    with caplog.at_level(logging.ERROR):
        see(store)
    assert heard == [store.topology]
    assert "a listener failed" in caplog.text


@virtual
async def test_what_is_so_already_is_not_waited_for() -> None:
    store = make_store()
    see(store)
    waiting = store.wait_for(one)
    with pytest.raises(StopIteration) as stop:
        waiting.send(None)
    assert stop.value.value is store.topology


@virtual
async def test_each_waiter_is_woken_by_its_own_change() -> None:
    store = make_store()
    first, second = start(store.wait_for(one)), start(store.wait_for(two))
    await settle()
    assert store.awaited is True
    see(store)
    await settle()
    assert (first.done(), second.done()) == (True, False)
    see(store, "b")
    assert await second is store.topology
    assert not store.awaited


@virtual
async def test_a_waiter_gets_the_first_snapshot_that_fits() -> None:
    store = make_store()
    waiting = start(store.wait_for(one))
    await settle()
    see(store)
    fitting = store.topology
    see(store, "b")
    assert await waiting is fitting


@virtual
async def test_a_cancelled_waiter_is_not_left_behind() -> None:
    store = make_store()
    for woken in (False, True):
        waiting = start(store.wait_for(one))
        await settle()
        if woken:
            see(store)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert not store.awaited


@virtual
async def test_what_a_predicate_raises_is_told_to_its_waiter_alone() -> None:
    store = make_store()

    def refuse(topology: Topology) -> bool:
        if topology.masters:
            raise LookupError("no use")
        return False

    refused, other = start(store.wait_for(refuse)), start(store.wait_for(one))
    await settle()
    see(store)
    with pytest.raises(LookupError):
        await refused
    await other
    with pytest.raises(LookupError):
        await store.wait_for(refuse)


@virtual
async def test_closing_sends_everybody_away() -> None:
    store = make_store()
    see(store)
    waiting = start(store.wait_for(two))
    await settle()
    store.close(lambda: RuntimeError("closed"))
    for wait in (waiting, start(store.wait_for(two)), start(store.wait_for(one))):
        with pytest.raises(RuntimeError, match="closed"):
            await wait
