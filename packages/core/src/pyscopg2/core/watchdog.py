"""What happens to those who do not answer: one timer for all, since all are given equally long."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

NOT_WAITING = -1

_TICKS = 4
"""Into so many parts the delay is divided: who is watched is given up to one part more."""


class Watched(Protocol):
    """What a watchdog looks at."""

    ticks: int
    """0 from when it waits for an answer; the watchdog counts up. Else `NOT_WAITING`."""


WatchedT = TypeVar("WatchedT", bound=Watched)


class Watchdog(Generic[WatchedT]):
    """Calls ``bite(thing)`` once for each thing that waits for an answer for ``delay`` seconds.

    It looks at all that is there four times meanwhile, so that to begin and to end waiting is an
    assignment and no more, since each release does both. When it looks late, the event loop itself
    stood still, and the answer may be in the socket already, unread: that look does not count.
    """

    def __init__(
        self,
        delay: float,
        things: Mapping[Any, WatchedT],
        bite: Callable[[WatchedT], None],
        needed: Callable[[], bool],
    ) -> None:
        """It stops for good when it is not ``needed`` any more."""
        self._tick = delay / _TICKS
        self._things = things
        self._bite = bite
        self._needed = needed
        self._forgiven = False

    def start(self) -> None:
        """Once."""
        loop = asyncio.get_running_loop()
        when = loop.time() + self._tick
        loop.call_at(when, self._look, when)

    def _look(self, when: float) -> None:
        if not self._needed():
            return
        loop = asyncio.get_running_loop()
        late = loop.time() - when > min(self._tick, 0.1)
        # Not twice in a row: a loop that is always late must not keep a frozen host alive.
        self._forgiven = late and not self._forgiven
        self.start()
        if not self._forgiven:
            for key, thing in tuple(self._things.items()):
                # Looked at one by one: a bite may end the waiting of others.
                if thing.ticks != NOT_WAITING and self._things.get(key) is thing:
                    thing.ticks += 1
                    if thing.ticks > _TICKS:
                        thing.ticks = NOT_WAITING
                        self._bite(thing)
