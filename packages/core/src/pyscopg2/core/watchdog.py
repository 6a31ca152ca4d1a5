"""What happens to those who do not answer: one timer for all, since all are given equally long."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_TICKS = 4
"""Into so many parts the delay is divided: who is watched is given up to one part more."""


class Watchdog(Generic[T]):
    """Calls ``bite(thing)`` for whatever was watched for ``delay`` seconds and not forgotten.

    To watch and to forget is an entry in a dictionary and no more, since each release does both.
    When a tick comes late, the event loop itself stood still, and the answer may be in the socket
    already, unread: that tick does not count.
    """

    def __init__(self, delay: float, bite: Callable[[T], None]) -> None:
        self._tick = delay / _TICKS
        self._bite = bite
        self._ticks = 0
        self._since: dict[T, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._forgiven = False

    def __iter__(self) -> Iterator[T]:
        """Those watched now."""
        return iter(tuple(self._since))

    def watch(self, thing: T) -> None:
        """From now on; the time of one that is watched already begins anew."""
        self._since[thing] = self._ticks
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._look)

    def forget(self, thing: T) -> None:
        """Any number of times."""
        self._since.pop(thing, None)

    def _look(self) -> None:
        if self._timer is None or not self._since:
            self._timer = None
            return
        loop = asyncio.get_running_loop()
        late = loop.time() - self._timer.when() > min(self._tick, 0.1)
        # Not twice in a row: a loop that is always late must not keep a frozen host alive.
        self._forgiven = late and not self._forgiven
        self._timer = loop.call_later(self._tick, self._look)
        if not self._forgiven:
            self._ticks += 1
            for thing in [t for t, since in self._since.items() if self._ticks - since > _TICKS]:
                if self._since.pop(thing, None) is not None:
                    self._bite(thing)
