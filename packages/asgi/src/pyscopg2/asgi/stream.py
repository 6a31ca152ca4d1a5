"""What one open page is told: server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from pyscopg2.asgi.arguments import Manager
from pyscopg2.asgi.endpoint import as_json
from pyscopg2.asgi.journal import WINDOW, Journal, event_as_dict
from pyscopg2.asgi.waits import Waits
from pyscopg2.core.statistics import HostStats

BEAT = 1.0
"""Seconds from one state to the next while nothing happens. So the stream is never silent for
longer, and needs nothing else to be kept open by what lies between."""

PROMPT = 0.05
"""Seconds from an event to the state that it has led to: many come together."""

BACKLOG = 500
"""Events that are kept for a page that reads slowly."""

RETRY = 2000
"""Milliseconds after which a browser that has lost the stream asks again."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What a page says of the process that it shows."""

    title: str
    instance: str
    """Another one for each process, and each start of it."""


class Stream:
    """One page's, from its opening to its end. Events are told as they come; the state, that is
    all that is known and the numbers, at least each second.

    It ends when it was closed; when its manager is; and when its time is up, with the word that the
    page should ask anew.
    """

    def __init__(
        self, manager: Manager, journal: Journal, heading: Heading, renew_after: float
    ) -> None:
        """From now on events are heard, and acquires observed. ``renew_after``: seconds."""
        self._manager = manager
        self._renew_after = renew_after
        self._news = journal.news.copy()
        self._waits = Waits()
        self._events = manager.events(BACKLOG)
        self._unobserve = manager.observe(self._waits)
        # In the same step as that, so that no event is in both of them, or in neither.
        self._snapshot = message("snapshot", self._all(journal, heading))

    def close(self) -> None:
        """Hear nothing more: `messages` ends. Safe to call again."""
        self._events.close()
        self._unobserve()

    async def messages(self) -> AsyncGenerator[bytes]:
        """As they are sent. To be read once."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._renew_after
        yield b"retry: %d\n" % RETRY + self._snapshot
        due = loop.time() + BEAT
        while (now := loop.time()) < end:
            if now >= due:
                due = now + BEAT
                yield message("state", self._state(time.time()))
                continue
            try:
                async with asyncio.timeout_at(min(due, end)):
                    event = await anext(self._events)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                yield message("state", self._state(time.time()))
                return
            if self._news.has(event):
                due = min(due, loop.time() + PROMPT)
                yield message("event", event_as_dict(event))
        yield message("state", self._state(time.time())) + message("renew", None)

    def _all(self, journal: Journal, heading: Heading) -> dict[str, object]:
        now = time.time()
        return {
            "title": heading.title,
            "instance": heading.instance,
            "window": WINDOW,
            **self._state(now),
            **journal.as_dict(now),
        }

    def _state(self, now: float) -> dict[str, object]:
        stats = self._manager.stats()
        return {
            "at": now,
            "topology": self._manager.topology.as_dict(),
            "stats": {
                "waiting": stats.waiting,
                "timed_out": stats.timed_out,
                "failovers": stats.failovers,
                "hosts": list(map(_numbers, stats)),
            },
            "waits": self._waits.take(),
        }


def _numbers(host: HostStats) -> dict[str, object]:
    """Those that are shown."""
    return {
        "address": host.address,
        "size": host.size,
        "in_use": host.in_use,
        "idle": host.idle,
        "waiting": host.waiting,
        "acquires": host.acquires,
        "failed_connects": host.failed_connects,
        "terminated": host.terminated,
    }


def message(event: str, data: object) -> bytes:
    """In the form of the HTML standard, section 9.2."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), as_json(data))
