"""One driver pool's life on one host: its slots, and how it answers."""

import asyncio
import math
import sys
from typing import Generic

from pyscopg2.core.adapter.protocol import PoolT
from pyscopg2.core.checkout.connect_trial import ConnectTrial
from pyscopg2.core.checkout.proofs import Proofs
from pyscopg2.core.checkout.request import Request
from pyscopg2.core.statistics.tally import Tally
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.timing.stopwatch import Stopwatch

DECAY = 0.5
"""Seconds in which a peak of the latency falls to its e-th part, with better news coming in.

Where nothing is heard of a host, its latency stays: so a slow one is not tried again before its
next check, and the fast ones, of which much is heard, forget the peaks of a busy machine soon.
"""

RECENT = 5
"""Over so many checks the recent time is the median: what lasts shows after three of them, and one
or two that took long by chance never do."""


class HostPool(ConnectTrial, Generic[PoolT]):
    """From when a driver pool is open to its end: its slots, counted, and what its host is like.

    A host that comes back after an outage gets a new one. The monitor's own connection is not among
    the slots. How many of them may be in use is decided by the trial that it is on after a connect
    that failed.
    """

    __slots__ = (
        "_proofs",
        "_recent",
        "address",
        "connecting",
        "in_use",
        "latency",
        "moving",
        "observed_at",
        "pool",
        "recent_time",
        "response_time",
        "retired",
        "tally",
    )

    def __init__(
        self,
        address: str,
        pool: PoolT,
        size: int | None,
        proofs: Proofs | None = None,
        tally: Tally | None = None,
    ) -> None:
        """``size``: None for no limit. Without ``proofs`` nothing is known of its lag. ``tally``:
        the host's, where there is one."""
        self.address = address
        self.pool = pool
        super().__init__(sys.maxsize if size is None else size)
        self.in_use = 0
        """Connections that are out, being opened, or on their way back. `Slots` alone counts."""
        self.response_time: float | None = None
        self.latency: float | None = None
        self.observed_at = 0.0
        """When that was last observed, by `stopwatch.clock`."""
        self.recent_time: float | None = None
        self._recent = Stopwatch(RECENT)
        self._proofs = proofs
        self.retired = False
        """Hands out nothing more, and ends with its last checkout."""
        self.tally = Tally() if tally is None else tally
        self.moving = True
        """A slot went from hand to hand since that was last asked."""
        self.connecting: dict[Request, dict[asyncio.Timeout, None]] = {}
        """The scopes of the acquires that wait for the driver just now, in the order in which they
        came, which is that in which they are interrupted."""

    @property
    def free(self) -> int:
        """How many slots can be taken now."""
        return max(0, self.limit - self.in_use)

    @property
    def lag(self) -> float | None:
        """Seconds that it is behind the master at most; None where that is not known."""
        if self._proofs is None:
            return None
        return self._proofs.freshness(self.address).lag(stopwatch.clock())

    def time_check(self, seconds: float, now: float) -> None:
        """A check's query took so long: `observe` it, and reckon the recent time anew."""
        self._recent.add(seconds)
        self.recent_time = self._recent.median
        self.observe(seconds, now)

    def observe(self, seconds: float, now: float) -> None:
        """The host took so many seconds to answer, just now: a peak counts at once."""
        before = self.latency
        if before is None or seconds >= before:
            self.latency = seconds
        else:
            kept = math.exp((self.observed_at - now) / DECAY)
            self.latency = seconds + (before - seconds) * kept
        self.observed_at = now

    def interrupt(self, request: Request, now: float) -> None:
        """Abort the acquires for ``request`` that wait for the driver: they go elsewhere."""
        for scope in self.connecting.get(request, ()):
            if not scope.expired():
                scope.reschedule(now)

    def interrupt_all(self, now: float) -> None:
        for request in self.connecting:
            self.interrupt(request, now)

    def retire(self, now: float) -> None:
        """Hand out nothing more."""
        self.retired = True
        # Its traceback knows the acquire that waited, and the pool.
        self.failure = None
        self.interrupt_all(now)

    def __repr__(self) -> str:
        return f"<Host pool of {self.address}: {self.in_use} of {self.size} in use>"
