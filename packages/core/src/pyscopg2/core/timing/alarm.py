"""A timer that does not blame others for a stall of our own event loop."""

import asyncio
from collections.abc import Callable

from pyscopg2.core.timing.stall import Stall

TICKS = 4
"""Into so many parts the delay is divided, so that a stall shows at whatever time it begins."""


class Alarm:
    """Calls back after ``delay`` seconds, unless cancelled before.

    Where our own event loop stood still meanwhile, it waits for the whole ``delay`` anew, once.
    """

    __slots__ = ("_callback", "_delay", "_due", "_handle", "_loop", "_stall", "_ticks")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, delay: float, callback: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._delay = delay
        self._callback = callback
        self._stall = Stall(once=True)
        self._ticks = TICKS
        self._due = 0.0
        """When the next tick is. Timers of uvloop's that are due at once do not say."""
        self._handle = self._next()

    def _next(self) -> asyncio.Handle:
        self._due = self._loop.time() + self._delay / TICKS
        return self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        late = self._loop.time() - self._due
        self._ticks -= 1
        if self._stall.excuses(late, self._delay / TICKS):
            self._ticks = TICKS
        if self._ticks:
            self._handle = self._next()
        else:
            self._callback()

    def cancel(self) -> None:
        """Any number of times, also after it has called back."""
        self._handle.cancel()
