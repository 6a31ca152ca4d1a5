"""Who waits for a place, first come, first served among those whom a free place satisfies."""

import asyncio
import itertools
import math
from collections.abc import Callable
from operator import attrgetter
from typing import Generic

from pyscopg2.core.adapter import PoolT
from pyscopg2.core.queue import Queue, Waiter
from pyscopg2.core.spell import Spell

FIRST = -1
"""The ticket of one who needed none, and lost its place: all who wait now came later."""

_SCAN = 2e-6
"""Seconds for each who waits, from one look at all their deadlines to the next: some twenty times
what a look takes."""


class Line(Generic[PoolT]):
    """The queues of those who wait, so that a release looks at as many heads as there are kinds of
    requests, however many wait; and one timer, for the one whose time is up first.

    To join and to be served is what many do; to wait in vain, few: so deadlines are looked through
    when one has come, and with 10,000 who wait that is up to 20 ms later.
    """

    def __init__(
        self,
        candidates: Callable[[Queue[PoolT]], list[Spell[PoolT]]],
        opened: Callable[[Queue[PoolT]], None],
    ) -> None:
        """``candidates`` finds out those of a queue, ``opened`` is told of one that had nobody."""
        self._candidates = candidates
        self.queuesed = opened
        self.queues: dict[Queue[PoolT], None] = {}
        """Those in which somebody waits: none, if nobody does."""
        self._tickets = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        """When the timer does, on the event loop's clock, in seconds."""
        self._looked_at = -math.inf
        """When the deadlines were last looked through."""

    @property
    def waiting(self) -> int:
        """How many."""
        return sum(len(queue.waiters) for queue in self.queues)

    def join(self, queue: Queue[PoolT], when: float, ticket: int | None = None) -> Waiter:
        """Stand where the ticket says, or at the end, until the loop's clock shows ``when``."""
        waiter = Waiter()
        waiter.queue = queue
        waiter.when = when
        waiters = queue.waiters
        was_empty = not waiters
        waiters[waiter] = None
        if ticket is None:
            waiter.ticket = next(self._tickets)
        else:
            # One who had a place already, and lost it with its host.
            waiter.ticket = ticket
            for later in [each for each in waiters if each.ticket > ticket]:
                waiters.move_to_end(later)
        if when < self._rings_at:
            self._arm(when)
        if was_empty:
            self.queues[queue] = None
            self.queuesed(queue)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Any number of times, also after having been served."""
        waiters = waiter.queue.waiters
        if waiter in waiters:
            del waiters[waiter]
            if not waiters:
                del self.queues[waiter.queue]

    def pop(self, spell: Spell[PoolT]) -> Waiter | None:
        """Take out who came first among those whom this spell may serve; None where there is
        nobody. What they wait for, `asyncio.Future.set_result` hands over."""
        first: Waiter | None = None
        for queue in self.queues:
            if queue.sole is spell or spell in self._candidates(queue):
                next_ = next(iter(queue.waiters))
                head = queue.head() if next_.done() else next_
                if first is None or (head is not None and head.ticket < first.ticket):
                    first = head
        if first is not None:
            # As `leave` does: on the way of every release that somebody waits for.
            queue = first.queue
            del queue.waiters[first]
            if not queue.waiters:
                del self.queues[queue]
        return first

    def heads(self) -> list[Waiter]:
        """The first waiter of each queue, those who came first coming first."""
        heads = [head for queue in self.queues if (head := queue.head())]
        if len(heads) > 1:
            heads.sort(key=attrgetter("ticket"))
        return heads

    def serve(self, waiter: Waiter, spell: Spell[PoolT]) -> None:
        """Hand over a place that was counted already; the waiter leaves the line at once."""
        self.leave(waiter)
        waiter.set_result(spell)

    def fail(self, waiter: Waiter, error: Exception) -> None:
        self.leave(waiter)
        waiter.set_exception(error)

    def turn_away(self, queue: Queue[PoolT], error: Exception) -> None:
        """Send those in this queue away with ``error``."""
        for waiter in tuple(queue.waiters):
            if not waiter.done():
                self.fail(waiter, error)

    def dissolve(self, error: Exception) -> None:
        """Send everybody away with ``error``."""
        for queue in tuple(self.queues):
            self.turn_away(queue, error)
        if self._timer is not None:
            self._timer.cancel()
        self._disarm()

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        when = max(when, self._looked_at + self.waiting * _SCAN)
        self._timer = asyncio.get_running_loop().call_at(when, self._look, when)
        self._rings_at = when

    def _disarm(self) -> None:
        self._timer = None
        self._rings_at = math.inf

    def _look(self, when: float) -> None:
        """Send those away whose time is up; ``when`` is what the timer was set to."""
        self._disarm()
        now = max(when, asyncio.get_running_loop().time())
        waiters: list[Waiter] = [each for queue in self.queues for each in queue.waiters]
        for waiter in waiters:
            if waiter.when <= now and not waiter.done():
                self.leave(waiter)
                waiter.set_result(None)
        self._looked_at = now
        following = min((each.when for each in waiters if each.when > now), default=math.inf)
        if following < math.inf:
            self._arm(following)
