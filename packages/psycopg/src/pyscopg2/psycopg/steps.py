"""Going through a driver's awaitable by hand, to do something of our own before it does."""

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")
ConnT = TypeVar("ConnT")


@types.coroutine
def cut_first(
    awaitable: Awaitable[T], cut: Callable[[ConnT], None], connection: ConnT
) -> Generator[Any, Any, T]:
    """Go through ``awaitable``; where the task is cancelled, ``cut`` the connection before the
    driver hears of it.

    Psycopg's answer to a cancellation is to ask the server to agree, for up to 10 s, and its pool
    swallows one that comes during a rollback. Cut off, it has nobody to ask; and the cancellation
    is raised here in any case.
    """
    cancelled = False
    steps = awaitable.__await__()
    try:
        pending = next(steps)
        while True:
            try:
                value = yield pending
            except asyncio.CancelledError as exc:
                cancelled = True
                cut(connection)
                pending = steps.throw(exc)
            except BaseException as exc:
                pending = steps.throw(exc)
            else:
                pending = steps.send(value)
    except StopIteration as stop:
        if cancelled:
            raise asyncio.CancelledError from None
        result: T = stop.value
        return result


@types.coroutine
def note_pending(
    steps: Generator[Any, Any, T], pending: Any, pending_ones: set[asyncio.Future[Any]]
) -> Generator[Any, Any, T]:
    """Go on with ``steps``, which wait for ``pending``; what they wait for is in the set meanwhile,
    to be cancelled."""
    try:
        while True:
            waiting = pending
            if waiting is not None:
                pending_ones.add(waiting)
            try:
                value = yield pending
            except BaseException as exc:
                pending_ones.discard(waiting)
                pending = steps.throw(exc)
            else:
                pending_ones.discard(waiting)
                pending = steps.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result
