"""Going on with a driver's awaitable whose first step was taken by hand.

A driver's acquire of an idle connection usually ends without suspending once. Where the core takes
the first step directly, that pays for no timer and no task; only what does suspend comes here.
"""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")

Steps = Generator[Any, Any, T]


class Interrupted(Exception):  # noqa: N818  it is a turn of events, not an error
    """The deadline passed, or the host was lost meanwhile."""


async def within(
    scope: asyncio.Timeout,
    steps: Steps[T],
    pending: Any,
    leave: Callable[[Coroutine[Any, Any, T]], None],
) -> T:
    """Go on with ``steps``, which wait for ``pending``, until the scope expires.

    `Interrupted` then, which is when its time comes, or when somebody reschedules it to now. The
    steps are cancelled. Where they do not end at once when cancelled, they are not waited for:
    ``leave`` gets what remains of them, to be run to its end elsewhere. A cancellation of the
    caller's task reaches the steps as it always does.
    """
    try:
        async with scope:
            return await _relay(steps, pending, scope, leave)
    except TimeoutError as exc:
        # The driver may have timed out by itself: then this is the driver's own error.
        if scope.expired():
            raise Interrupted from exc
        raise


async def resume(steps: Steps[T], pending: Any) -> T:
    """Go on with ``steps``, which wait for ``pending``, to their end."""
    return await _relay(steps, pending)


@types.coroutine
def _relay(
    steps: Steps[T],
    pending: Any,
    scope: asyncio.Timeout | None = None,
    leave: Callable[[Coroutine[Any, Any, T]], None] | None = None,
) -> Generator[Any, Any, T]:
    """Go on with ``steps``, which wait for ``pending``, until they end or the scope expires."""
    try:
        while True:
            try:
                value = yield pending
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as exc:
                pending = steps.throw(exc)
                if leave is not None and scope is not None and scope.expired():
                    leave(resume(steps, pending))
                    raise
            else:
                pending = steps.send(value)
    except StopIteration as stop:
        return cast(T, stop.value)
