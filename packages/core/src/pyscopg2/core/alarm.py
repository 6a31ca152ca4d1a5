"""A timer that does not blame others for a stall of our own event loop."""

import asyncio
from collections.abc import Callable

TICKS = 4
"""Into so many parts the delay is divided, so that a stall shows at whatever time it begins."""


class Alarm:
    """Calls back after ``delay`` seconds, unless cancelled before.

    When one of its ticks comes late, the loop itself stood still: the answer that it watches for
    may be in the socket already, unread. It then waits for the whole ``delay`` anew, once.
    """

    __slots__ = ("_callback", "_delay", "_handle", "_loop", "_stalled", "_ticks")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, delay: float, callback: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._delay = delay
        self._callback = callback
        self._stalled = False
        self._ticks = TICKS
        self._handle = loop.call_later(delay / TICKS, self._tick)

    def _tick(self) -> None:
        late = self._loop.time() - self._handle.when()
        self._ticks -= 1
        if late > min(self._delay / TICKS, 0.1) and not self._stalled:
            self._stalled = True
            self._ticks = TICKS
        if self._ticks:
            self._handle = self._loop.call_later(self._delay / TICKS, self._tick)
        else:
            self._callback()

    def cancel(self) -> None:
        """Any number of times, also after it has called back."""
        self._handle.cancel()
