"""Going through a driver's awaitable by hand, to do something of our own before it does.

A cancellation reaches whoever goes through the awaitable, which decides whether the driver hears of
it. That is right only where each cancellation comes from outside: `asyncio.timeout`, and from
Python 3.12 on `asyncio.wait_for`, cancel the very task that they bound. What may use them runs
`in_a_task` of its own.

Who was cancelled raises the very `CancelledError` that came: anyio knows its own by what is in it.
"""

import asyncio
import re
import sys
import types
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, Protocol, TypeVar

import psycopg

T = TypeVar("T")

_VERSION = tuple(int(number) for number in re.findall(r"\d+", psycopg.__version__)[:3])


TIMED = sys.version_info >= (3, 12) and _VERSION < (3, 3, 6)
"""Psycopg waits by `asyncio.wait_for`, for a tenth of a second each time."""


class Steps(Protocol):
    """What is left of a coroutine that was begun by hand."""

    def send(self, value: None, /) -> Any:
        """One step."""
        ...

    def close(self) -> None:
        """No more of them."""
        ...


@types.coroutine
def to_its_end(
    steps: Steps, pending: asyncio.Future[Any] | None, interrupted: Callable[[], None]
) -> Generator[Any, Any, Any]:
    """Go on with ``steps``, which wait for ``pending``, to their end, whoever is cancelled.

    They never hear of a cancellation, be it one or one at each await; ``interrupted`` is called for
    each, and the first of them raised when they have ended, however they did.
    """
    heard: list[asyncio.CancelledError] = []

    def note(exc: asyncio.CancelledError) -> None:
        heard.append(exc)
        interrupted()

    try:
        result = yield from carry(steps, pending, note)
    except GeneratorExit:
        raise
    except BaseException:
        if heard:
            raise heard[0] from None
        raise
    else:
        if heard:
            raise heard[0]
        return result
    finally:
        heard.clear()  # they refer to this frame, and so to the connection


def carry(
    steps: Steps,
    pending: asyncio.Future[Any] | None,
    interrupted: Callable[[asyncio.CancelledError], None],
) -> Generator[Any, Any, Any]:
    """The same, for who has to have what they end with, although cancelled."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            while True:
                # With the task, what it waits for is cancelled: this, and not what they wait for.
                turn = loop.create_future()
                if pending is None:  # they let others have their turn
                    loop.call_soon(_end, turn)
                else:
                    pending.add_done_callback(partial(_end, turn))
                try:
                    yield from turn
                    break
                except asyncio.CancelledError as exc:
                    interrupted(exc)
                    if pending is None or pending.done():
                        # With a cancellation in each turn of the loop there is no later.
                        break
            pending = steps.send(None)
    except GeneratorExit:
        steps.close()
        raise
    except StopIteration as stop:
        return stop.value


async def in_a_task(awaitable: Awaitable[T]) -> T:
    """Await it in a task of its own, which is cancelled where this one is."""
    task = asyncio.ensure_future(_run(awaitable))
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.add_done_callback(_hear)
        task.cancel()
        await asyncio.wait({task})
        raise
    return task.result()


def bounded_by_psycopg(awaitable: Awaitable[T]) -> Awaitable[T]:
    """What waits for a server by psycopg: it goes `in_a_task` where psycopg bounds its waits."""
    return in_a_task(awaitable) if TIMED else awaitable


def cancellations() -> int:
    """How often the current task was cancelled: more than before, and it is cancelled just now."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def _run(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _end(turn: asyncio.Future[None], _: object = None) -> None:
    if not turn.done():
        turn.set_result(None)


def _hear(task: asyncio.Task[Any]) -> None:
    """Else the event loop complains of an exception that nobody has retrieved."""
    if not task.cancelled():
        task.exception()
