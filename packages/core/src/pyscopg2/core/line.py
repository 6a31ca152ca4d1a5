"""Who waits for a place, first come, first served among those whom a free place satisfies."""

import asyncio
import itertools
from collections import OrderedDict
from typing import Any, NamedTuple

from pyscopg2.core.selection import Request
from pyscopg2.core.spell import Spell

Place = asyncio.Future[Spell[Any] | None]
"""Becomes the spell on which a place was taken for the waiter; None when its time is up."""


class Waiter(NamedTuple):
    """One who waits, with the ticket that tells who came first."""

    request: Request
    ticket: int
    place: Place


class Line:
    """One queue per distinct request, so that a release looks at as many heads as there are kinds
    of requests, however many wait."""

    def __init__(self) -> None:
        self._queues: dict[Request, OrderedDict[int, Waiter]] = {}
        self._tickets = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    @property
    def requests(self) -> tuple[Request, ...]:
        """The distinct requests that somebody waits with."""
        return tuple(self._queues)

    def join(self, request: Request) -> Waiter:
        """Stand at the end."""
        waiter = Waiter(request, next(self._tickets), asyncio.get_running_loop().create_future())
        self._queues.setdefault(request, OrderedDict())[waiter.ticket] = waiter
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Any number of times, also after having been served."""
        queue = self._queues.get(waiter.request)
        if queue is not None and queue.pop(waiter.ticket, None) is not None and not queue:
            del self._queues[waiter.request]

    def heads(self) -> list[Waiter]:
        """The first waiter of each distinct request, those who came first coming first."""
        heads = [head for queue in list(self._queues.values()) if (head := self._head(queue))]
        return heads if len(heads) < 2 else sorted(heads, key=_by_ticket)

    def _head(self, queue: OrderedDict[int, Waiter]) -> Waiter | None:
        while queue:
            waiter = next(iter(queue.values()))
            if not waiter.place.done():
                return waiter
            # Cancelled in this very turn of the loop: its task has had no chance to leave yet.
            self.leave(waiter)
        return None

    def serve(self, waiter: Waiter, spell: Spell[Any]) -> None:
        """Hand over a place that was counted already; the waiter leaves the line at once."""
        self.leave(waiter)
        waiter.place.set_result(spell)

    def fail(self, waiter: Waiter, error: Exception) -> None:
        self.leave(waiter)
        waiter.place.set_exception(error)

    def turn_away(self, request: Request, error: Exception) -> None:
        """Send those with this request away with ``error``."""
        while (queue := self._queues.get(request)) and (head := self._head(queue)):
            self.fail(head, error)

    def dissolve(self, error: Exception) -> None:
        """Send everybody away with ``error``."""
        while heads := self.heads():
            for waiter in heads:
                self.fail(waiter, error)


def _by_ticket(waiter: Waiter) -> int:
    return waiter.ticket
