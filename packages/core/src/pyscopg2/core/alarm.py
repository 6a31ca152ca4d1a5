"""A timer that does not blame others for a stall of our own event loop."""

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls back after ``delay`` seconds, unless cancelled before.

    When it fires late, the loop itself stood still: the answer that it watches for may be in the
    socket already, unread. It then waits for one more ``delay``, once.
    """

    __slots__ = ("_callback", "_delay", "_handle", "_loop")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, delay: float, callback: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._delay = delay
        self._callback = callback
        self._handle = loop.call_later(delay, self._ring)

    def _ring(self) -> None:
        late = self._loop.time() - self._handle.when()
        if late > min(self._delay / 4, 0.1):
            self._handle = self._loop.call_later(self._delay, self._callback)
        else:
            self._callback()

    def cancel(self) -> None:
        """Any number of times, also after it has called back."""
        self._handle.cancel()
