"""Work that is given so long, whatever the driver does meanwhile."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from pyscopg2.core.timing.alarm import Alarm
from pyscopg2.core.timing.background import Background

T = TypeVar("T")


class FailedError(Exception):
    """Wraps what an attempt has failed with, so that no ``except`` in between takes it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _nothing() -> None:
    """There is nothing to cut off before a connect is cancelled."""


async def attempt(
    work: Awaitable[T],
    seconds: float,
    late: TimeoutError,
    background: Background,
    cut: Callable[[], object] = _nothing,
    undo: Callable[[T], object] | None = None,
) -> T:
    """What ``work`` returns, in a task of its own.

    `FailedError` with what it raises, or with ``late`` after so many seconds, or where ``cut`` was
    called before it has ended: that ends what it waits for, which a cancellation alone may not do
    for long. ``undo`` takes back what comes when nobody waits for it any more. A coroutine is
    closed also where it never began, since the event loop's end has cancelled all tasks.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(_caught(work))
    if inspect.iscoroutine(work):
        task.add_done_callback(lambda _: work.close())
    over: asyncio.Future[None] = loop.create_future()

    def end(_: object = None) -> None:
        if not over.done():
            over.set_result(None)

    task.add_done_callback(end)
    alarm = Alarm(loop, seconds, end)
    wanted = False
    try:
        await over
        wanted = task.done()
    finally:
        alarm.cancel()
        if not wanted:
            if not task.done():
                # Terminate first: a driver may take long to agree to a cancellation.
                cut()
                task.cancel()
            task.add_done_callback(lambda task: _undo(task, undo))
        background.adopt(task)
    if not wanted:
        raise FailedError(late)
    if task.cancelled():
        raise FailedError(ConnectionError("the driver cancelled what it was asked for"))
    value, error = task.result()
    if error is not None:
        raise FailedError(error)
    return cast(T, value)


async def _caught(work: Awaitable[T]) -> tuple[T | None, BaseException | None]:
    """What comes of it: result or error. Not even `SystemExit` goes on to the event loop, which a
    task would do with it."""
    try:
        return await work, None
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise
    except BaseException as exc:
        return None, exc


def _undo(
    task: "asyncio.Task[tuple[T | None, BaseException | None]]",
    undo: Callable[[T], object] | None,
) -> None:
    """A driver that swallowed the cancellation has done it all the same."""
    if undo is not None and not task.cancelled() and task.exception() is None:
        value, error = task.result()
        if error is None:
            undo(cast(T, value))
