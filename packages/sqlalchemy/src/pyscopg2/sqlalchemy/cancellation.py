"""What has to happen before a driver hears that it is cancelled."""

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")


@types.coroutine
def cut_first(awaitable: Awaitable[T], cut: Callable[[], None]) -> Generator[Any, Any, T]:
    """Go through ``awaitable``; where the task is cancelled, ``cut`` before the driver hears of it.

    When they are cancelled the drivers, and SQLAlchemy, want to part from the server in good
    order: psycopg asks it to stop for five seconds, SQLAlchemy over asyncpg says good-bye for
    two, and a frozen server answers neither. On a connection that is closed they do not try.

    Both in one step: the event loop watches the socket until the driver has heard of it, and a
    connection that is opened in between may get the same file descriptor.
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
                cut()
                pending = steps.throw(exc)
            except BaseException as exc:
                pending = steps.throw(exc)
            else:
                pending = steps.send(value)
    except StopIteration as stop:
        if cancelled:
            raise asyncio.CancelledError from None
        return cast(T, stop.value)
