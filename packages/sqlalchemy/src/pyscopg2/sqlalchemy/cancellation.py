"""What has to happen before a driver hears that it is cancelled."""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")


async def before_a_cancellation(end: Callable[[], None], work: Coroutine[Any, Any, T]) -> T:
    """Run ``work``; where the caller is cancelled, ``end`` is called before that reaches it.

    When they are cancelled the drivers, and SQLAlchemy, want to part from the server in good
    order: psycopg asks it to stop for five seconds, SQLAlchemy over asyncpg says good-bye for
    two, and a frozen server answers neither. On a connection that is closed they do not try.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        end()
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # nobody else will ask for it
        raise


@types.coroutine
def cut_first(work: Coroutine[Any, Any, T], cut: Callable[[], None]) -> Generator[Any, Any, T]:
    """The same in the caller's own task, for work that needs none of its own to be safe: ``cut``
    is called, then ``work`` hears of the cancellation, which is raised here in any case."""
    cancelled: asyncio.CancelledError | None = None
    steps = work.__await__()
    try:
        pending = next(steps)
        while True:
            try:
                value = yield pending
            except asyncio.CancelledError as exc:
                cancelled = exc
                cut()
                pending = steps.throw(exc)
            except BaseException as exc:
                pending = steps.throw(exc)
            else:
                pending = steps.send(value)
    except StopIteration as stop:
        if cancelled is not None:
            raise cancelled from None
        return cast(T, stop.value)
