"""What has to happen before a driver hears that it is cancelled, and after: cutting off first."""

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator
from traceback import clear_frames
from typing import Any, TypeVar, cast

from pyscopg2.core.adapter.stepping import resume

T = TypeVar("T")


@types.coroutine
def cut_first(
    awaitable: Awaitable[T],
    cut: Callable[[], object],
    undo: Callable[[T], object] = lambda _: None,
) -> Generator[Any, Any, T]:
    """Go through ``awaitable``; where the task is cancelled, ``cut`` before the driver hears of it.

    Drivers that are cancelled want to part from the server in good order: psycopg asks it to stop,
    for five or ten seconds, SQLAlchemy over asyncpg says good-bye for two, and a frozen server
    answers neither. On a connection that is cut off they do not try.

    Both in one step: the event loop watches the socket until the driver has heard of it, and a
    connection that is opened in between may get the same file descriptor.

    They hear of it once. What they still have to do then, a pool above all, which has yet to take
    its connection back, is never interrupted, however often the task is cancelled: it takes some
    turns of the event loop, since nothing waits for the server any more. ``undo`` gets what comes
    of it all the same. The cancellation is raised after that, and nothing else.

    A timeout within ``awaitable`` cancels the task, too, and takes that back by itself: then it is
    no cancellation, and what comes of it counts.
    """
    steps = awaitable.__await__()
    try:
        pending = next(steps)
    except StopIteration as stop:
        return cast(T, stop.value)
    return (yield from _go_on(steps, pending, cut, undo))


def _go_on(
    steps: Generator[Any, Any, T],
    pending: Any,
    cut: Callable[[], object],
    undo: Callable[[T], object],
) -> Generator[Any, Any, T]:
    """`cut_first`, from the first time on that its steps wait for something."""
    me = asyncio.current_task()
    before = _cancelling(me)
    cancellation: asyncio.CancelledError | None = None
    failure: BaseException | None = None
    result: Any = None
    try:
        try:
            while cancellation is None or _cancelling(me) <= before:
                try:
                    value = yield pending
                except asyncio.CancelledError as exc:
                    # Without what leads here: `_let_go` must not reach those who wait.
                    cancellation = exc.with_traceback(None)
                    cut()
                    pending = steps.throw(cancellation)
                except GeneratorExit:
                    # The event loop is gone.
                    cut()
                    steps.close()
                    raise
                except BaseException as exc:
                    pending = steps.throw(exc)
                else:
                    pending = steps.send(value)
            rest = asyncio.get_running_loop().create_task(resume(steps, pending))
            yield from _ended(rest).__await__()
            result = rest.result()
        except StopIteration as stop:
            result = stop.value
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            if cancellation is None:
                raise
            _let_go(exc)
            failure = exc
        if cancellation is None:
            return cast(T, result)
        if _cancelling(me) > before or isinstance(failure, asyncio.CancelledError):
            if failure is None:
                undo(result)
            # The very one: anyio's scopes know theirs by it.
            raise cancellation
        if failure is not None:
            raise failure
        return cast(T, result)
    finally:
        # They refer to this frame.
        del cancellation, failure


go_on = types.coroutine(_go_on)


def _cancelling(task: asyncio.Task[Any] | None) -> int:
    """How many cancellations of a task are not taken back."""
    return 0 if task is None else task.cancelling()


def _let_go(exc: BaseException) -> None:
    """What psycopg was opening is closed when it is freed, and SQLAlchemy's tracebacks refer to
    themselves: the garbage collector may take its time."""
    clear_frames(exc.__traceback__)


async def _ended(task: asyncio.Task[Any]) -> None:
    """Until the task has ended, however often whoever waits is cancelled."""
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue
