"""The acquires with one request: which host pools may serve them, and which of them wait."""

import math
from asyncio import Future
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, NamedTuple

from pyscopg2.core.adapter.protocol import PoolT
from pyscopg2.core.checkout.bound import Bound
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.proofs import Proofs
from pyscopg2.core.checkout.request import Request
from pyscopg2.core.checkout.selection import proven
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.topology.snapshot import Topology

Waiter = Future[HostPool[Any] | None]
"""An acquire that waits: becomes the host pool on which a slot was taken for it; None when its time
is up."""

Turn = tuple[int, float, Bound | None]
"""A ticket, by which waiters are in order; when the time is up, on the event loop's clock, in
seconds; and what is demanded of the host, where the request is bounded."""


class WaitQueue(Generic[PoolT]):
    """All that there is of one `Request`. An acquire holds it, so that it need not look it up."""

    __slots__ = ("candidates", "request", "retired", "sole", "waiters")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.candidates: list[HostPool[PoolT]] | None = None
        """The host pools that may serve it now, with a free slot or without. None: to be found out
        anew. Never None while somebody waits here."""
        self.sole: HostPool[PoolT] | None = None
        """Where it is known to be one alone, as a master is."""
        self.retired = False
        """The one pool that it is for is. Some acquires may still hold the queue, and a new pool
        may have the same id."""
        self.waiters: OrderedDict[Waiter, Turn] = OrderedDict()
        """First come, first served."""

    def reconsider(self, candidates: list[HostPool[PoolT]] | None) -> None:
        """Other host pools may serve it from now on; None: that is to be found out anew."""
        self.candidates = candidates
        self.sole = candidates[0] if candidates is not None and len(candidates) == 1 else None

    def head(self) -> Waiter | None:
        """The first one that still waits."""
        for waiter in self.waiters:
            # Some were cancelled in this very turn of the loop, and could not leave yet.
            if not waiter.done():
                return waiter
        return None

    def first_for(self, host_pool: HostPool[PoolT]) -> Waiter | None:
        """The first one that still waits, and that this host pool may serve."""
        if self.candidates is None or host_pool not in self.candidates:
            return None
        return self.head()


class Proven(NamedTuple, Generic[PoolT]):
    """Which host pools may serve reads with one bound: kept until the next snapshot, another bound,
    or until a bound in seconds runs out, since looking again costs more than the rest of an
    acquire."""

    bound: Bound
    topology: Topology
    able: list[HostPool[PoolT]]
    until: float
    """The moment, on `stopwatch.clock`, from which on this is to be found out anew: a bound in
    seconds runs out."""
    heard: dict[HostPool[PoolT], Callable[[], bool] | None]
    """`HostState.is_heard` of those whose connections lead to the server that was asked."""


class BoundedQueue(WaitQueue[PoolT]):
    """The reads with one `Request` that have bounds: each its own, which a host pool has to keep.

    So the first that waits is not always the first to be served: one that no host can serve yet
    holds nobody up.
    """

    __slots__ = ("_proofs", "last")

    def __init__(self, request: Request, proofs: Proofs) -> None:
        super().__init__(request)
        self._proofs = proofs
        self.last: Proven[PoolT] | None = None
        """What was found out last."""

    def reconsider(self, candidates: list[HostPool[PoolT]] | None) -> None:
        # Which of them may serve depends on the waiter, and on the time.
        self.candidates = candidates
        self.last = None

    def head(self) -> Waiter | None:
        """The first one for which a host pool has a free slot."""
        return self._first(lambda able: any(each.in_use < each.limit for each in able))

    def first_for(self, host_pool: HostPool[PoolT]) -> Waiter | None:
        return self._first(lambda able: host_pool in able)

    def is_anybody_without(self) -> bool:
        """Whether somebody waits whom no host can serve: none is proven to keep the bound."""
        return self._first(lambda able: not able) is not None

    def proven(self, bound: Bound) -> list[HostPool[PoolT]]:
        """The candidates that may serve a request with this bound now."""
        recalled = self.recalled(bound)
        if recalled is not None:
            return recalled
        proofs = self._proofs
        now = stopwatch.clock()
        able = proven(proofs, self.candidates or (), self.request, bound, now)
        known = [proofs.freshness(each.address) for each in able]
        until = min((each.moment for each in known), default=math.inf) + bound.max_lag
        if now < bound.masters_at:
            until = min(until, bound.masters_at)
        heard = {
            each: proofs.topology[each.address].is_heard
            for each, freshness in zip(able, known, strict=True)
            if freshness.is_direct
        }
        self.last = Proven(bound, proofs.topology, able, until, heard)
        return able

    def recalled(self, bound: Bound) -> list[HostPool[PoolT]] | None:
        """`proven`, where it was found out before and holds still; else None."""
        last = self.last
        # Not equal, but the very one: bounds that are read with again and again are the same.
        if (
            last is not None
            and last.bound is bound
            and last.topology is self._proofs.topology
            and stopwatch.clock() < last.until
        ):
            return last.able
        return None

    def _first(self, holds: Callable[[list[HostPool[PoolT]]], bool]) -> Waiter | None:
        """The first one that still waits, and of whose host pools this holds."""
        known: dict[Bound, bool] = {}
        for waiter, (_, _, bound) in self.waiters.items():
            if bound is None or waiter.done():
                continue
            held = known.get(bound)
            if held is None:
                held = known[bound] = holds(self.proven(bound))
            if held:
                return waiter
        return None
