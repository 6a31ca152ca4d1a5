"""Who waits for a place, first come, first served among those whom a free place satisfies."""

import asyncio
import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Container, Mapping
from operator import attrgetter
from typing import Any, TypeVar

from pyscopg2.core.selection import Request
from pyscopg2.core.spell import Spell

FIRST = -1
"""The ticket of one who needed none, and lost its place: all who wait now came later."""

SpellT = TypeVar("SpellT", bound=Spell[Any])

_SPARE = 64
"""So many of the past are remembered at least before they are swept out."""


class Waiter(asyncio.Future[Spell[Any] | None]):
    """One who waits: becomes the spell on which a place was taken for it; None when its time is
    up."""

    __slots__ = ("request", "ticket")

    request: Request
    ticket: int
    """Tells who came first."""


class Line:
    """One queue per distinct request, so that a release looks at as many heads as there are kinds
    of requests, however many wait; and one timer, for the one whose time is up first."""

    def __init__(self, opened: Callable[[Request], None]) -> None:
        """``opened`` is told the request of the first who waits with it."""
        self._opened = opened
        self._queues: dict[Request, OrderedDict[Waiter, None]] = {}
        self._tickets = itertools.count()
        self.waiting = 0
        """How many."""
        self._deadlines: list[tuple[float, int, Waiter]] = []
        """A heap; also of some who have left the line meanwhile."""
        self._entries = itertools.count()
        """So that no two entries of the heap are alike."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        """When that is, on the event loop's clock, in seconds."""

    @property
    def requests(self) -> tuple[Request, ...]:
        """The distinct requests that somebody waits with."""
        return tuple(self._queues)

    def join(self, request: Request, when: float, ticket: int | None = None) -> Waiter:
        """Stand where the ticket says, or at the end, until the loop's clock shows ``when``."""
        waiter = Waiter()
        waiter.request = request
        queue = self._queues.get(request)
        is_first = queue is None
        if queue is None:
            queue = self._queues[request] = OrderedDict()
        queue[waiter] = None
        if ticket is None:
            waiter.ticket = next(self._tickets)
        else:
            # One who had a place already, and lost it with its host.
            waiter.ticket = ticket
            for later in [each for each in queue if each.ticket > ticket]:
                queue.move_to_end(later)
        self.waiting += 1
        if len(self._deadlines) > 2 * self.waiting + _SPARE:
            self._deadlines = [entry for entry in self._deadlines if not entry[-1].done()]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (when, next(self._entries), waiter))
        if when < self._rings_at:
            self._arm(when)
        if is_first:
            self._opened(request)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Any number of times, also after having been served."""
        queue = self._queues.get(waiter.request)
        if queue is not None and waiter in queue:
            del queue[waiter]
            self.waiting -= 1
            if not queue:
                del self._queues[waiter.request]

    def pop(self, spell: SpellT, candidates: Mapping[Request, Container[SpellT]]) -> Waiter | None:
        """Take out who came first among those with a request for which the spell is a candidate;
        None where there is nobody. What they wait for, `asyncio.Future.set_result` hands over."""
        first: Waiter | None = None
        # A copy: who was cancelled may be the last one of a queue.
        for request, queue in tuple(self._queues.items()):
            if spell in candidates[request]:
                first_here = next(iter(queue))
                head = self._head(request) if first_here.done() else first_here
                if head is not None and (first is None or head.ticket < first.ticket):
                    first = head
        if first is not None:
            # As `leave` does: on the way of every release that somebody waits for.
            queue = self._queues[first.request]
            del queue[first]
            self.waiting -= 1
            if not queue:
                del self._queues[first.request]
        return first

    def heads(self) -> list[Waiter]:
        """The first waiter of each distinct request, those who came first coming first."""
        heads = [head for request in tuple(self._queues) if (head := self._head(request))]
        if len(heads) > 1:
            heads.sort(key=attrgetter("ticket"))
        return heads

    def _head(self, request: Request) -> Waiter | None:
        while queue := self._queues.get(request):
            head = next(iter(queue))
            if not head.done():
                return head
            # Cancelled in this very turn of the loop: its task has had no chance to leave yet.
            self.leave(head)
        return None

    def serve(self, waiter: Waiter, spell: Spell[Any]) -> None:
        """Hand over a place that was counted already; the waiter leaves the line at once."""
        self.leave(waiter)
        waiter.set_result(spell)

    def fail(self, waiter: Waiter, error: Exception) -> None:
        self.leave(waiter)
        waiter.set_exception(error)

    def turn_away(self, request: Request, error: Exception) -> None:
        """Send those with this request away with ``error``."""
        while head := self._head(request):
            self.fail(head, error)

    def dissolve(self, error: Exception) -> None:
        """Send everybody away with ``error``."""
        while heads := self.heads():
            for waiter in heads:
                self.fail(waiter, error)
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._rings_at = math.inf

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._expire, when)
        self._rings_at = when

    def _expire(self, now: float) -> None:
        """Send those away whose time is up; ``now`` is what the timer was set to."""
        self._timer = None
        self._rings_at = math.inf
        now = max(now, asyncio.get_running_loop().time())
        while self._deadlines:
            when, _, waiter = self._deadlines[0]
            if not waiter.done():
                if when > now:
                    self._arm(when)
                    return
                self.leave(waiter)
                waiter.set_result(None)
            heapq.heappop(self._deadlines)
