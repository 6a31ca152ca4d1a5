"""Work that is cancelled at one of its awaits: once, or by a cancel scope."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from pyscopg2.testing.bench import cancelled_at

__all__ = ("ENOUGH", "Interrupted", "each_moment", "each_way")

ENOUGH = 200
"""Awaits of one verb, at most: one that has more goes round in circles."""

each_way = pytest.mark.parametrize("again", [False, True], ids=["once", "at every await"])
"""How it is cancelled."""

each_moment = pytest.mark.parametrize("late", [False, True], ids=["waiting", "just answered"])
"""Whether what it waits for has come when it is cancelled, and it has yet to hear of it."""


class Interrupted:
    """A task that is cancelled where its work suspends for the ``turn``-th time.

    Once; or ``again``, by a cancel scope.
    """

    def __init__(self, work: Awaitable[Any], turn: int, again: bool, late: bool) -> None:
        self.happened = False
        """Whether it came that far."""
        self.came_too_late = False
        """Whether the scope could cancel nothing any more: what the work waited for had come."""
        self.escaped = False
        """Whether a cancellation left the scope that it came from."""
        self.task: asyncio.Task[Any] = asyncio.ensure_future(
            self._in_scope(work, turn, late) if again else self._by_itself(work, turn, late)
        )

    async def _by_itself(self, work: Awaitable[Any], turn: int, late: bool) -> Any:
        return await cancelled_at(work, turn, late, self._cancelling(self.task.cancel))

    async def _in_scope(self, work: Awaitable[Any], turn: int, late: bool) -> Any:
        scope = anyio.CancelScope()
        try:
            with scope:
                result = await cancelled_at(work, turn, late, self._cancelling(scope.cancel))
                # A scope cancels in a later turn of the loop, and never what has come by then.
                self.came_too_late = self.happened and not self.task.cancelling()
                return result
        except asyncio.CancelledError:
            self.escaped = True
            raise
        raise asyncio.CancelledError

    def _cancelling(self, cancel: Callable[[], object]) -> Callable[[], None]:
        def interrupt() -> None:
            self.happened = True
            cancel()

        return interrupt
