"""What happens to connections that do not answer: one timer, since all are given equally long."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from pyscopg2.core.timing.stall import Stall

NOT_WAITING = -1

_TICKS = 4
"""Into so many parts the delay is divided: a thing that is watched is given up to one part more."""


class Watched(Protocol):
    """What a watchdog looks at."""

    ticks: int
    """0 from when it waits for an answer; the watchdog counts up. Else `NOT_WAITING`."""


WatchedT = TypeVar("WatchedT", bound=Watched)


class Watchdog(Generic[WatchedT]):
    """Calls ``bite(thing)`` once for each thing that waits for an answer for ``delay`` seconds.

    It looks at all that is there four times meanwhile, so that to begin and to end waiting is an
    assignment and no more, since each release does both.
    """

    def __init__(
        self, delay: float, things: Mapping[Any, WatchedT], bite: Callable[[WatchedT], None]
    ) -> None:
        self._tick = delay / _TICKS
        self._things = things
        self._bite = bite
        self._stall = Stall(once=False)
        self._stopped = False

    def start(self) -> None:
        """Once."""
        loop = asyncio.get_running_loop()
        when = loop.time() + self._tick
        loop.call_at(when, self._look, when)

    def stop(self) -> None:
        """For good."""
        self._stopped = True

    def _look(self, when: float) -> None:
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        late = loop.time() - when
        self.start()
        if not self._stall.excuses(late, self._tick):
            for key, thing in tuple(self._things.items()):
                # Looked at one by one: a bite may end the waiting of others.
                if thing.ticks != NOT_WAITING and self._things.get(key) is thing:
                    thing.ticks += 1
                    if thing.ticks > _TICKS:
                        thing.ticks = NOT_WAITING
                        self._bite(thing)
