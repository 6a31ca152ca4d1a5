import asyncio

import pytest
import uvloop
from tests.core.conftest import now, virtual

from pyscopg2.core.timing.alarm import Alarm
from pyscopg2.testing.virtual_time import settle, stall


def alarm(delay: float = 1.0) -> tuple[Alarm, list[float]]:
    rung: list[float] = []
    return Alarm(asyncio.get_running_loop(), delay, lambda: rung.append(now())), rung


@virtual
async def test_it_rings_once_when_its_time_has_come() -> None:
    _, rung = alarm()
    await asyncio.sleep(10)
    assert rung == [1]


@virtual
async def test_it_is_silent_when_cancelled() -> None:
    one, rung = alarm()
    one.cancel()
    one.cancel()
    await asyncio.sleep(10)
    assert rung == []


@pytest.mark.parametrize("seconds", [1.05, 1.2, 2, 60])
@virtual
async def test_after_a_stall_it_gives_one_more_delay(seconds: float) -> None:
    one, rung = alarm()
    await settle()
    stall(seconds)
    await asyncio.sleep(0.9)
    assert rung == []
    await asyncio.sleep(0.2)
    assert rung == [seconds + 1]
    one.cancel()


@virtual
async def test_the_second_time_can_be_cancelled_too() -> None:
    one, rung = alarm()
    await settle()
    stall(2)
    await asyncio.sleep(0.5)
    one.cancel()
    await asyncio.sleep(10)
    assert rung == []


@virtual
async def test_a_short_delay_is_late_sooner() -> None:
    one, rung = alarm(0.04)
    await settle()
    stall(0.06)
    await settle()
    assert rung == []
    one.cancel()


def test_it_rings_on_uvloop_however_soon() -> None:
    """A timer that is due within half a millisecond is none there."""

    async def main() -> None:
        rung = asyncio.Event()
        Alarm(asyncio.get_running_loop(), 1e-4, rung.set)
        async with asyncio.timeout(30):
            await rung.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        unheard: list[object] = []
        runner.get_loop().set_exception_handler(lambda _, context: unheard.append(context))
        runner.run(main())
    assert not unheard
