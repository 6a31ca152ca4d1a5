"""A cancellation at a chosen await."""

import asyncio
import itertools
import types
from collections.abc import Awaitable, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")


@types.coroutine
def cancelled_at(
    awaitable: Awaitable[T], turn: int, *, again: bool = False
) -> Generator[Any, Any, T]:
    """Go through ``awaitable``, and cancel the current task where it suspends the ``turn``-th time,
    and ``again`` wherever it does after that, as a cancel scope of anyio's would."""
    task = cast("asyncio.Task[T]", asyncio.current_task())
    steps = awaitable.__await__()
    try:
        pending = next(steps)
        for suspended in itertools.count():
            if suspended == turn or (again and suspended > turn):
                task.cancel()
            try:
                value = yield pending
            except BaseException as exc:
                pending = steps.throw(exc)
            else:
                pending = steps.send(value)
    except StopIteration as stop:
        return cast("T", stop.value)
    raise AssertionError("unreachable")
