"""Events for those who like to wait for them."""

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator
from functools import partial

from pyscopg2.core.events.event import Event, EventsDropped, ManagerClosed
from pyscopg2.core.events.listeners import Listeners


class EventStream(AsyncIterator[Event]):
    """``async for`` over the events from when this was made. It ends after `ManagerClosed`.

    It holds so many events at most. Where it is not read fast enough the oldest go, and an
    `EventsDropped` stands in their place. One that nobody holds any more ends by itself; `close`
    ends it at once. It is for one reader.
    """

    def __init__(self, listeners: Listeners, limit: int) -> None:
        """``limit``: how many events it holds at most; 1 or more."""
        self._events: deque[Event] = deque(maxlen=limit)
        self._dropped = 0
        self._is_over = False
        self._arrival: asyncio.Future[None] | None = None
        # The listeners must not keep it alive.
        unsubscribe = listeners.subscribe(partial(_hear, weakref.ref(self)))
        self._end = weakref.finalize(self, unsubscribe)
        self._end.atexit = False

    def hear(self, event: Event) -> None:
        """One more; called by the listeners."""
        if len(self._events) == self._events.maxlen:
            self._dropped += 1
        self._events.append(event)
        if isinstance(event, ManagerClosed):
            self.close()
        self._wake()

    def close(self) -> None:
        """Hear nothing more. What was heard before can be read still."""
        self._end()
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def __anext__(self) -> Event:
        while True:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                return EventsDropped(count=dropped)
            if self._events:
                return self._events.popleft()
            if self._is_over:
                raise StopAsyncIteration
            if self._arrival is not None:
                raise RuntimeError("an EventStream is for one reader: call events() for another")
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None


def _hear(stream: "weakref.ref[EventStream]", event: Event) -> None:
    there = stream()
    if there is not None:
        there.hear(event)
