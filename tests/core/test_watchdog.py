import asyncio

from tests.core.conftest import now, virtual

from pyscopg2.core.watchdog import Watchdog
from pyscopg2.testing.virtual_time import stall


class Bites(list[tuple[str, float]]):
    def add(self, thing: str) -> None:
        self.append((thing, now()))


@virtual
async def test_who_does_not_answer_is_bitten_once() -> None:
    bites = Bites()
    dog = Watchdog(1.0, bites.add)
    dog.watch("a")
    await asyncio.sleep(0.6)
    dog.watch("b")
    await asyncio.sleep(10)
    assert [thing for thing, _ in bites] == ["a", "b"]
    (_, a), (_, b) = bites
    assert 1.0 <= a <= 1.25
    assert 1.6 <= b <= 1.85
    assert list(dog) == []


@virtual
async def test_who_is_forgotten_in_time_is_not() -> None:
    bites = Bites()
    dog = Watchdog(1.0, bites.add)
    dog.watch("a")
    await asyncio.sleep(0.99)
    dog.forget("a")
    dog.forget("a")
    await asyncio.sleep(10)
    assert bites == []


@virtual
async def test_to_watch_again_begins_anew() -> None:
    bites = Bites()
    dog = Watchdog(1.0, bites.add)
    dog.watch("a")
    await asyncio.sleep(0.9)
    dog.watch("a")
    assert list(dog) == ["a"]
    await asyncio.sleep(0.9)
    assert bites == []
    await asyncio.sleep(0.5)
    assert len(bites) == 1


@virtual
async def test_it_sleeps_while_there_is_nothing_to_watch_and_wakes_again() -> None:
    bites = Bites()
    dog = Watchdog(1.0, bites.add)
    for _ in range(3):
        dog.watch("a")
        dog.forget("a")
        await asyncio.sleep(5)
        dog.watch("b")
        began = now()
        await asyncio.sleep(5)
        ((_, at),) = bites
        assert 1.0 <= at - began <= 1.25
        bites.clear()


@virtual
async def test_a_stall_of_the_event_loop_is_nobodys_fault() -> None:
    bites = Bites()
    dog = Watchdog(1.0, bites.add)
    dog.watch("a")
    await asyncio.sleep(0.8)
    stall(60)
    # The answer may have been in the socket all the while: there is time to read it.
    await asyncio.sleep(0.1)
    dog.forget("a")
    await asyncio.sleep(10)
    assert bites == []


@virtual
async def test_a_loop_that_is_always_late_protects_nobody_for_ever() -> None:
    bites = Bites()
    dog = Watchdog(1.0, bites.add)
    dog.watch("a")
    for _ in range(20):
        stall(0.6)
        await asyncio.sleep(0.01)
    assert [thing for thing, _ in bites] == ["a"]


@virtual
async def test_a_bite_may_watch_and_forget() -> None:
    bitten: list[str] = []

    def bite(thing: str) -> None:
        bitten.append(thing)
        dog.forget("b")
        if len(bitten) < 3:
            dog.watch("c")

    dog = Watchdog(1.0, bite)
    dog.watch("a")
    dog.watch("b")
    await asyncio.sleep(10)
    assert bitten == ["a", "c", "c"]
