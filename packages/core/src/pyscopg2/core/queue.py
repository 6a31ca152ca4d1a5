"""Those who ask for the same: who may serve them, and who of them waits."""

from asyncio import Future
from collections import OrderedDict
from typing import Any, Generic

from pyscopg2.core.adapter import PoolT
from pyscopg2.core.selection import Request
from pyscopg2.core.spell import Spell

Waiter = Future[Spell[Any] | None]
"""One who waits: becomes the spell on which a place was taken for it; None when its time is up."""

Turn = tuple[int, float]
"""A ticket, which tells who came first, and when the time is up, on the event loop's clock, in
seconds."""


class Queue(Generic[PoolT]):
    """All that there is of one `Request`. An acquire holds it, so that it need not look it up."""

    __slots__ = ("candidates", "request", "retired", "sole", "waiters")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.candidates: list[Spell[PoolT]] | None = None
        """Who may serve now, with a free place or without; None: to be found out anew."""
        self.sole: Spell[PoolT] | None = None
        """Where it is known to be one alone, as a master is."""
        self.retired = False
        """The one pool that it is for is. Some acquires may still hold the queue, and a new pool
        may have the same id."""
        self.waiters: OrderedDict[Waiter, Turn] = OrderedDict()
        """First come, first served."""

    def reconsider(self, candidates: list[Spell[PoolT]] | None) -> None:
        self.candidates = candidates
        self.sole = candidates[0] if candidates is not None and len(candidates) == 1 else None

    def head(self) -> Waiter | None:
        """Who is the next, still waiting."""
        for waiter in self.waiters:
            # Some were cancelled in this very turn of the loop, and could not leave yet.
            if not waiter.done():
                return waiter
        return None
