"""Who waits for a place, first come, first served among those whom a free place satisfies."""

import asyncio
import itertools
import math
from collections.abc import Callable
from typing import Any, Generic

from pyscopg2.core.adapter import PoolT
from pyscopg2.core.queue import Queue, Waiter
from pyscopg2.core.spell import Spell

_SCAN = 2e-6
"""Seconds for each who waits, from one look at all their deadlines to the next: some ten times
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
        self._opened = opened
        self.queues: dict[Queue[PoolT], None] = {}
        """Those in which somebody waits: none, if nobody does."""
        self._only: Queue[PoolT] | None = None
        """The one in which somebody waits, where it is one alone."""
        self.tickets = itertools.count()
        """The next one is for who comes next: it tells who came first."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        """When the timer does, on the event loop's clock, in seconds."""
        self._looked_at = -math.inf
        """When the deadlines were last looked through."""

    @property
    def waiting(self) -> int:
        """How many."""
        return sum(len(queue.waiters) for queue in self.queues)

    def join(self, queue: Queue[PoolT], ticket: int, when: float) -> Waiter:
        """Stand at the end, with a new ticket, until the loop's clock shows ``when``."""
        waiter: Waiter = asyncio.Future()
        queue.waiters[waiter] = ticket, when
        if when < self._rings_at:
            self._arm(when)
        if queue not in self.queues:
            self.queues[queue] = None
            self._find_only()
            self._opened(queue)
        return waiter

    def rejoin(self, queue: Queue[PoolT], ticket: int, when: float) -> Waiter:
        """Stand where the ticket says: for one who drew it before, and lost a place since."""
        waiter = self.join(queue, ticket, when)
        waiters = queue.waiters
        for later in [each for each, (other, _) in waiters.items() if other > ticket]:
            waiters.move_to_end(later)
        return waiter

    def leave(self, queue: Queue[PoolT], waiter: Waiter) -> None:
        """Any number of times, also after having been served."""
        if queue.waiters.pop(waiter, None) is not None and not queue.waiters:
            self._close(queue)

    def pop(self, spell: Spell[PoolT]) -> Waiter | None:
        """Take out who came first among those whom this spell may serve; None where there is
        nobody. What they wait for, `asyncio.Future.set_result` hands over."""
        while True:
            # Most often all who wait want the same, and one host alone has it: a release pays for
            # no comparison then.
            queue = self._only
            if queue is None or queue.sole is not spell:
                return self._pop_first(spell)
            waiter, _ = queue.waiters.popitem(False)
            if not queue.waiters:
                self._close(queue)
            # Some were cancelled in this very turn of the loop, and could not leave yet.
            if not waiter.done():
                return waiter

    def heads(self) -> list[tuple[Queue[PoolT], Waiter]]:
        """The first waiter of each queue, those who came first coming first."""
        heads = [(queue, head) for queue in self.queues if (head := queue.head())]
        if len(heads) > 1:
            heads.sort(key=_ticket)
        return heads

    def serve(self, queue: Queue[PoolT], waiter: Waiter, spell: Spell[PoolT]) -> None:
        """Hand over a place that was counted already; the waiter leaves the line at once."""
        self.leave(queue, waiter)
        waiter.set_result(spell)

    def fail(self, queue: Queue[PoolT], waiter: Waiter, error: Exception) -> None:
        """Send one who waits away with ``error``."""
        self.leave(queue, waiter)
        waiter.set_exception(error)

    def turn_away(self, queue: Queue[PoolT], error: Exception) -> None:
        """Send those in this queue away with ``error``."""
        for waiter in tuple(queue.waiters):
            if not waiter.done():
                self.fail(queue, waiter, error)

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
        waiting = [
            (until, waiter, queue)
            for queue in self.queues
            for waiter, (_, until) in queue.waiters.items()
        ]
        for until, waiter, queue in waiting:
            if until <= now and not waiter.done():
                self.leave(queue, waiter)
                waiter.set_result(None)
        self._looked_at = now
        following = min((until for until, _, _ in waiting if until > now), default=math.inf)
        if following < math.inf:
            self._arm(following)

    def _pop_first(self, spell: Spell[PoolT]) -> Waiter | None:
        """`pop`, whoever waits, and whatever spells may serve them."""
        for queue, head in self.heads():
            if queue.sole is spell or spell in self._candidates(queue):
                self.leave(queue, head)
                return head
        return None

    def _close(self, queue: Queue[PoolT]) -> None:
        """Nobody waits there any more."""
        del self.queues[queue]
        self._find_only()

    def _find_only(self) -> None:
        self._only = next(iter(self.queues)) if len(self.queues) == 1 else None


def _ticket(head: tuple[Queue[Any], Waiter]) -> int:
    queue, waiter = head
    ticket, _ = queue.waiters[waiter]
    return ticket
