"""The acquires that wait for a slot: first come, first served among those that it satisfies."""

import asyncio
import itertools
import math
from collections.abc import Callable
from typing import Any, Generic

from pyscopg2.core.adapter.protocol import PoolT
from pyscopg2.core.checkout.bound import Bound
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.wait_queue import Waiter, WaitQueue
from pyscopg2.core.monitoring.attention import Attention

_SCAN = 2e-6
"""Seconds for each waiter, from one look through all their deadlines to the next: some ten times
what that takes."""


class WaitQueues(Generic[PoolT]):
    """The queues in which somebody waits, so that a release looks at as many heads as there are
    kinds of requests, however many wait; and one timer, for the waiter whose time is up first.

    To join and to be served is what many do; to wait in vain, few: so deadlines are looked through
    when one has come, and with 10,000 waiters that is up to 20 ms later.

    A queue in which somebody waits knows its candidates; `Slots` sees to that.
    """

    def __init__(self, attention: Attention) -> None:
        self._attention = attention
        self.occupied: dict[WaitQueue[PoolT], None] = {}
        """Those in which somebody waits: none, if nobody does."""
        self._only: WaitQueue[PoolT] | None = None
        """The one in which somebody waits, where it is one alone."""
        self.tickets = itertools.count()
        """The next one is for the acquire that comes next: it tells which came first."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        """When the timer does, on the event loop's clock, in seconds."""
        self._looked_at = -math.inf
        """When the deadlines were last looked through."""
        self.crowd: dict[WaitQueue[PoolT], int] = {}
        """How many waited in each queue then: those whose time was up among them."""

    @property
    def waiting(self) -> int:
        """How many."""
        return sum(self.lengths().values())

    def lengths(self) -> dict[WaitQueue[PoolT], int]:
        """How many wait in each queue. Other threads may ask."""
        return {queue: len(queue.waiters) for queue in tuple(self.occupied)}

    def join(
        self, queue: WaitQueue[PoolT], ticket: int, when: float, bound: Bound | None = None
    ) -> Waiter:
        """Stand at the end, with a new ticket, until the loop's clock shows ``when``."""
        waiter: Waiter = asyncio.Future()
        queue.waiters[waiter] = ticket, when, bound
        if when < self._rings_at:
            self._arm(when)
        if queue not in self.occupied:
            self.occupied[queue] = None
            self._find_only()
        return waiter

    def rejoin(
        self, queue: WaitQueue[PoolT], ticket: int, when: float, bound: Bound | None = None
    ) -> Waiter:
        """Stand where the ticket says: it was drawn before, and a slot was lost since."""
        waiter = self.join(queue, ticket, when, bound)
        waiters = queue.waiters
        for later in [each for each, (other, _, _) in waiters.items() if other > ticket]:
            waiters.move_to_end(later)
        return waiter

    def leave(self, queue: WaitQueue[PoolT], waiter: Waiter) -> None:
        """Any number of times, also after having been served."""
        if queue.waiters.pop(waiter, None) is not None and not queue.waiters:
            self._close(queue)

    def pop(self, host_pool: HostPool[PoolT]) -> Waiter | None:
        """Take out the waiter that came first among those whom this host pool may serve; None where
        there is none. What it waits for, `asyncio.Future.set_result` hands over."""
        while True:
            # Most often all waiters want the same, and one host alone has it: a release pays for
            # no comparison then.
            queue = self._only
            if queue is None or queue.sole is not host_pool:
                return self._pop_first(host_pool)
            waiter, _ = queue.waiters.popitem(False)
            if not queue.waiters:
                self._close(queue)
            # Some were cancelled in this very turn of the loop, and could not leave yet.
            if not waiter.done():
                return waiter

    def heads(self) -> list[tuple[WaitQueue[PoolT], Waiter]]:
        """Of each queue the waiter that is first to be served, in the order of their tickets."""
        heads = [(queue, head) for queue in self.occupied if (head := queue.head())]
        if len(heads) > 1:
            heads.sort(key=_ticket)
        return heads

    def serve(self, queue: WaitQueue[PoolT], waiter: Waiter, host_pool: HostPool[PoolT]) -> None:
        """Hand over a slot that was counted already; the waiter leaves its queue at once."""
        self.leave(queue, waiter)
        waiter.set_result(host_pool)

    def fail(self, queue: WaitQueue[PoolT], waiter: Waiter, error: BaseException) -> None:
        """Send one waiter away with ``error``."""
        self.leave(queue, waiter)
        waiter.set_exception(error)

    def turn_away(self, queue: WaitQueue[PoolT], error: Callable[[], Exception]) -> None:
        """Send those in this queue away, each with an ``error()`` of its own: to raise it
        writes a traceback into it."""
        for waiter in tuple(queue.waiters):
            if not waiter.done():
                self.fail(queue, waiter, error())

    def dissolve(self, error: Callable[[], Exception]) -> None:
        """Send everybody away, each with an ``error()`` of its own."""
        for queue in tuple(self.occupied):
            self.turn_away(queue, error)
        if self._timer is not None:
            self._timer.cancel()
        self._disarm()

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        when = max(when, self._looked_at + self.waiting * _SCAN)
        self._timer = asyncio.get_running_loop().call_at(when, self._send_late_away, when)
        self._rings_at = when

    def _disarm(self) -> None:
        self._timer = None
        self._rings_at = math.inf

    def _send_late_away(self, when: float) -> None:
        """Those whose time is up; ``when`` is what the timer was set to."""
        self._disarm()
        self.crowd = self.lengths()
        now = max(when, asyncio.get_running_loop().time())
        waiting = [
            (until, waiter, queue)
            for queue in self.occupied
            for waiter, (_, until, _) in queue.waiters.items()
        ]
        for until, waiter, queue in waiting:
            if until <= now and not waiter.done():
                self.leave(queue, waiter)
                waiter.set_result(None)
        self._looked_at = now
        following = min((until for until, _, _ in waiting if until > now), default=math.inf)
        if following < math.inf:
            self._arm(following)

    def _pop_first(self, host_pool: HostPool[PoolT]) -> Waiter | None:
        """`pop`, whatever the waiters ask for, and whatever host pools may serve them."""
        able = [(queue, first) for queue in self.occupied if (first := queue.first_for(host_pool))]
        if not able:
            return None
        queue, first = min(able, key=_ticket)
        self.leave(queue, first)
        return first

    def _close(self, queue: WaitQueue[PoolT]) -> None:
        """Nobody waits there any more."""
        del self.occupied[queue]
        self._find_only()
        self._attention.found(queue)
        self._attention.proved(queue)

    def _find_only(self) -> None:
        self._only = next(iter(self.occupied)) if len(self.occupied) == 1 else None


def _ticket(head: tuple[WaitQueue[Any], Waiter]) -> int:
    queue, waiter = head
    ticket, _, _ = queue.waiters[waiter]
    return ticket
