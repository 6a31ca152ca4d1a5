import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.core.conftest import now, virtual

from pyscopg2.core.timing.watchdog import NOT_WAITING, Watchdog
from pyscopg2.testing.virtual_time import stall


class Thing:
    def __init__(self) -> None:
        self.ticks = NOT_WAITING
        self.bitten_at: list[float] = []

    def bite(self) -> None:
        self.bitten_at.append(now())


@asynccontextmanager
async def watched(*things: Thing) -> AsyncGenerator[None]:
    """Under the eyes of a dog that lets things wait for a second."""
    watchdog = Watchdog(1.0, dict(enumerate(things)), Thing.bite)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.stop()


@virtual
async def test_who_does_not_answer_is_bitten_once() -> None:
    one, other = Thing(), Thing()
    async with watched(one, other):
        one.ticks = 0
        await asyncio.sleep(0.6)
        other.ticks = 0
        await asyncio.sleep(10)
    (first,), (second,) = one.bitten_at, other.bitten_at
    assert 1.0 <= first <= 1.25
    assert 1.6 <= second <= 1.85
    assert one.ticks == other.ticks == NOT_WAITING


@virtual
async def test_who_ends_waiting_in_time_is_not() -> None:
    thing = Thing()
    async with watched(thing):
        thing.ticks = 0
        await asyncio.sleep(0.99)
        thing.ticks = NOT_WAITING
        await asyncio.sleep(10)
    assert thing.bitten_at == []


@virtual
async def test_what_waits_for_nothing_is_left_alone() -> None:
    thing = Thing()
    async with watched(thing):
        await asyncio.sleep(10)
        thing.ticks = 0
        began = now()
        await asyncio.sleep(10)
    (bitten_at,) = thing.bitten_at
    assert 1.0 <= bitten_at - began <= 1.25


@virtual
async def test_to_wait_again_begins_anew() -> None:
    thing = Thing()
    async with watched(thing):
        thing.ticks = 0
        await asyncio.sleep(0.9)
        thing.ticks = 0
        await asyncio.sleep(0.9)
        assert thing.bitten_at == []
        await asyncio.sleep(0.5)
    assert len(thing.bitten_at) == 1


@virtual
async def test_a_stall_of_the_event_loop_is_nobodys_fault() -> None:
    thing = Thing()
    async with watched(thing):
        thing.ticks = 0
        await asyncio.sleep(0.8)
        stall(60)
        # The answer may have been in the socket all the while: there is time to read it.
        await asyncio.sleep(0.1)
        thing.ticks = NOT_WAITING
        await asyncio.sleep(10)
    assert thing.bitten_at == []


@virtual
async def test_a_stall_just_before_the_time_is_up_is_nobodys_fault() -> None:
    thing = Thing()
    async with watched(thing):
        thing.ticks = 0
        await asyncio.sleep(1.1)
        stall(60)
        await asyncio.sleep(0.1)
        thing.ticks = NOT_WAITING
        await asyncio.sleep(10)
    assert thing.bitten_at == []


@virtual
async def test_a_loop_that_is_always_late_protects_nobody_for_ever() -> None:
    thing = Thing()
    async with watched(thing):
        thing.ticks = 0
        for _ in range(20):
            stall(0.6)
            await asyncio.sleep(0.01)
    assert len(thing.bitten_at) == 1


@virtual
async def test_a_bite_may_end_the_waiting_of_others_and_begin_it_anew() -> None:
    def bite(thing: str) -> None:
        bitten.append(thing)
        things.pop("b", None)
        things["c"].ticks = NOT_WAITING
        things["d"].ticks = 0

    class Named(Thing):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def bite(self) -> None:
            bite(self.name)

    bitten: list[str] = []
    things = {name: Named(name) for name in "abcd"}
    for name in "abc":
        things[name].ticks = 0
    watchdog = Watchdog(1.0, things, Named.bite)
    watchdog.start()
    await asyncio.sleep(2)
    watchdog.stop()
    await asyncio.sleep(8)
    assert bitten == ["a"]
    assert things["d"].ticks > 0


@virtual
async def test_it_stops() -> None:
    thing = Thing()
    watchdog = Watchdog(1.0, {0: thing}, Thing.bite)
    watchdog.start()
    thing.ticks = 0
    await asyncio.sleep(0.6)
    watchdog.stop()
    await asyncio.sleep(10)
    assert not thing.bitten_at
    assert len(asyncio.all_tasks()) == 1
