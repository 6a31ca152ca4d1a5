import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any

import pytest
from tests.core.conftest import now, start, virtual

from pyscopg2.core.adapter.stepping import Interrupted, resume, within
from pyscopg2.testing.virtual_time import settle

Rest = Coroutine[Any, Any, Any]


class Driver:
    """Something to wait for, whose first step is taken by hand as the core does."""

    def __init__(self, work: Awaitable[Any]) -> None:
        self.steps: Generator[Any, Any, Any] = work.__await__()
        self.pending = next(self.steps)
        self.scope = asyncio.timeout(None)
        self.left: list[Rest] = []

    async def within(self, seconds: float) -> Any:
        self.scope = asyncio.timeout(seconds)
        return await within(self.scope, self.steps, self.pending, self.left.append)

    async def resume(self) -> Any:
        return await resume(self.steps, self.pending)


async def answer(seconds: float, *, turns: int = 0, slow: float = 0) -> str:
    """Waits, some turns of the loop first; takes ``slow`` seconds to agree to a cancellation."""
    for _ in range(turns):
        await asyncio.sleep(0)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        agreed = now() + slow
        while now() < agreed:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(agreed - now())
        raise
    return "answer"


async def fail(seconds: float, error: BaseException) -> None:
    await asyncio.sleep(seconds)
    raise error


VERBS = ("within", "resume")


def going_on(verb: str, driver: Driver) -> Rest:
    return driver.within(10) if verb == "within" else getattr(driver, verb)()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("turns", [0, 3])
@virtual
async def test_what_the_steps_return(verb: str, turns: int) -> None:
    driver = Driver(answer(1, turns=turns))
    assert await going_on(verb, driver) == "answer"
    assert now() == 1
    assert driver.left == []


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("error", [LookupError("no"), TimeoutError("the driver's own")])
@virtual
async def test_what_the_steps_raise(verb: str, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        await going_on(verb, Driver(fail(1, error)))
    assert raised.value is error


@pytest.mark.parametrize("verb", VERBS)
@virtual
async def test_a_future_will_do(verb: str) -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = start(going_on(verb, Driver(future)))
    await settle()
    future.set_result("came")
    assert await task == "came"


@pytest.mark.parametrize("verb", ["within", "resume"])
@virtual
async def test_a_cancellation_reaches_the_steps(verb: str) -> None:
    task = start(going_on(verb, Driver(answer(9, slow=0.5))))
    await settle()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert now() == 0.5


@virtual
async def test_the_deadline_cancels_the_steps() -> None:
    driver = Driver(answer(9))
    with pytest.raises(Interrupted):
        await driver.within(2)
    assert now() == 2
    assert driver.left == []


@virtual
async def test_steps_that_do_not_end_at_once_are_not_waited_for() -> None:
    driver = Driver(answer(9, slow=3))
    with pytest.raises(Interrupted):
        await driver.within(2)
    assert now() == 2
    (rest,) = driver.left
    with pytest.raises(asyncio.CancelledError):
        await rest
    assert now() == 5


@virtual
async def test_a_slow_cancellation_still_ends_at_the_deadline() -> None:
    driver = Driver(answer(9, slow=60))
    task = start(driver.within(5))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert now() == 5
    assert task.cancelled()
    (rest,) = driver.left
    rest.close()


@virtual
async def test_whoever_holds_the_scope_may_end_it_earlier() -> None:
    driver = Driver(answer(9))
    task = start(driver.within(5))
    await asyncio.sleep(1)
    scope = driver.scope
    scope.reschedule(now())
    with pytest.raises(Interrupted):
        await task
    assert now() == 1


@virtual
async def test_a_cancellation_wins_over_the_deadline() -> None:
    task = start(Driver(answer(9)).within(2))
    asyncio.get_running_loop().call_at(2, task.cancel)
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("verb", VERBS)
@virtual
async def test_an_abandoned_coroutine_closes_the_steps(verb: str) -> None:
    closed: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            closed.append("closed")

    driver = Driver(work())
    going = going_on(verb, driver)
    going.send(None)
    going.close()
    del going, driver
    assert closed == ["closed"]
