"""No test of the contracts hangs, whatever an adapter does; and what hangs is named."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.testing.right_adapters import Reserving, Right

from pyscopg2.core.adapter import (
    Adapter,
    ChecksOptions,
    ClosesPools,
    EndsBlocks,
    Reserves,
    ReturnsEarly,
    TakesExtraParams,
    TellsRecovery,
)
from pyscopg2.testing.contracts.running import run_in_time
from pyscopg2.testing.contracts.verbs import Verbs, watched
from pyscopg2.testing.fake import FakeAdapter, FakeNetwork

OPTIONAL = (
    ChecksOptions,
    ClosesPools,
    EndsBlocks,
    Reserves,
    ReturnsEarly,
    TakesExtraParams,
    TellsRecovery,
)


class Hanging:
    """An adapter's acquires, each in a way of its own."""

    def __init__(self) -> None:
        self.relieved = 0

    def relieve(self) -> None:
        self.relieved += 1

    async def acquire_from_pool(self, how: str, /) -> None:
        if how == "waits":
            await asyncio.sleep(60)
        elif how == "swallows":
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass
        elif how == "blocks":
            time.sleep(60)
        elif how == "blocks until relieved":
            while not self.relieved:
                time.sleep(0.01)
        elif how == "raises":
            raise LookupError(how)

    def terminate_connection(self, how: str, /) -> None:
        time.sleep(60)


def run(
    test: Callable[[Any], Coroutine[Any, Any, None]], adapter: Hanging, limit: float = 30.0
) -> None:
    verbs = Verbs()
    seen: Any = watched(adapter, verbs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run_in_time(
        test(seen),
        verbs,
        verb_limit=lambda _: 0.3,
        limit=limit,
        blocked=0.3,
        relieve=adapter.relieve,
    )


@pytest.mark.parametrize("how", ["waits", "swallows"])
def test_a_verb_that_does_not_end_is_named(how: str) -> None:
    async def test(adapter: Any) -> None:
        await adapter.acquire_from_pool(how)

    began = time.monotonic()
    with pytest.raises(
        pytest.fail.Exception, match=r"^acquire_from_pool\(\) did not end within 0.3"
    ):
        run(test, Hanging())
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("how", ["blocks", "blocks until relieved"])
def test_a_verb_that_blocks_the_event_loop_is_named_and_where(how: str) -> None:
    async def test(adapter: Any) -> None:
        await adapter.acquire_from_pool(how)

    adapter = Hanging()
    began = time.monotonic()
    with pytest.raises(pytest.fail.Exception, match="blocked the event loop") as caught:
        run(test, adapter)
    assert time.monotonic() - began < 5
    assert adapter.relieved == 1
    told = str(caught.value)
    assert told.startswith("acquire_from_pool()")
    assert "test_running.py" in told
    assert "in acquire_from_pool" in told


def test_an_ordinary_verb_that_blocks_is_named() -> None:
    async def test(adapter: Any) -> None:
        adapter.terminate_connection("blocks")

    with pytest.raises(pytest.fail.Exception, match=r"^terminate_connection\(\) has blocked"):
        run(test, Hanging())


def test_what_blocks_and_is_no_verb_is_shown() -> None:
    async def test(adapter: Any) -> None:
        time.sleep(60)

    with pytest.raises(pytest.fail.Exception, match=r"^something has blocked"):
        run(test, Hanging())


def test_a_test_that_takes_too_long_says_what_it_waits_for() -> None:
    async def test(adapter: Any) -> None:
        for _ in range(1000):
            await asyncio.gather(adapter.acquire_from_pool("returns"), asyncio.sleep(0.02))

    with pytest.raises(pytest.fail.Exception, match="it waits for no verb of the adapter's"):
        run(test, Hanging(), limit=0.5)


def test_errors_and_results_are_those_of_the_test() -> None:
    async def test(adapter: Any) -> None:
        await adapter.acquire_from_pool("returns")
        with pytest.raises(LookupError) as caught:
            await adapter.acquire_from_pool("raises")
        assert caught.value.__context__ is None
        await asyncio.to_thread(time.sleep, 0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(test, Hanging())


@pytest.mark.parametrize(
    "adapter",
    [Right(), Reserving(), FakeAdapter(FakeNetwork.cluster())],
    ids=lambda adapter: type(adapter).__name__,
)
def test_a_watched_adapter_has_what_it_had(adapter: Adapter[Any, Any]) -> None:
    seen = watched(adapter, Verbs())
    assert repr(seen) == repr(adapter)
    for optional in OPTIONAL:
        assert isinstance(seen, optional) is isinstance(adapter, optional), optional
