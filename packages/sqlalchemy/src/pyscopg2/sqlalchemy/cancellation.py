"""What has to happen before a driver hears that it is cancelled."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

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
