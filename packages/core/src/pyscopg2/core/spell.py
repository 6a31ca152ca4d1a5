"""One driver pool's life on one host: its places, and who is using them."""

import asyncio
import math
import sys
from typing import Generic

from pyscopg2.core.adapter import PoolT
from pyscopg2.core.selection import Request

DECAY = 0.5
"""Seconds in which a peak of the latency falls to its e-th part, with better news coming in.

Where nothing is heard of a host, its latency stays: so a slow one is not tried again before its
next check, and the fast ones, of which much is heard, forget the peaks of a busy machine soon.
"""


class Spell(Generic[PoolT]):
    """From the creation of a driver pool to its end: the places for users, counted.

    A host that comes back after an outage begins a new spell with a new pool. The monitor's own
    connection is not among the places: the driver's pool holds one more than ``size``.
    """

    __slots__ = (
        "address",
        "in_use",
        "latency",
        "limit",
        "moving",
        "observed_at",
        "overdue",
        "pool",
        "response_time",
        "retired",
        "scopes",
        "size",
        "tried_at",
    )

    def __init__(self, address: str, pool: PoolT, maxsize: int | None) -> None:
        self.address = address
        self.pool = pool
        self.size = sys.maxsize if maxsize is None else maxsize - 1
        """Places for users."""
        self.limit = self.size
        """How many of them may be in use: after a failed connect those that are open, and then one
        more at a time, until all may again."""
        self.in_use = 0
        """Connections that are out, being opened, or on their way back."""
        self.response_time: float | None = None
        self.latency: float | None = None
        self.observed_at = 0.0
        """When that was last observed, on the event loop's clock, in seconds."""
        self.tried_at = -math.inf
        """When a connect failed, or one more was let try, on the event loop's clock, in seconds."""
        self.overdue = False
        """The host takes far longer than usual to answer its check: others come first."""
        self.retired = False
        """Hands out nothing more, and ends with its last checkout."""
        self.moving = True
        """A place went from hand to hand since somebody last looked."""
        self.scopes: dict[Request, dict[asyncio.Timeout, None]] = {}
        """Of the acquires that wait for the driver just now, first come, first interrupted."""

    @property
    def suspended(self) -> bool:
        """A connect failed and nothing is open: nobody comes here until a good check later."""
        return self.limit == 0

    @property
    def free(self) -> int:
        return max(0, self.size - self.in_use)

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
        for scope in self.scopes.get(request, ()):
            if not scope.expired():
                scope.reschedule(now)

    def interrupt_all(self, now: float) -> None:
        for request in self.scopes:
            self.interrupt(request, now)

    def retire(self, now: float) -> None:
        """Hand out nothing more."""
        self.retired = True
        self.interrupt_all(now)

    def __repr__(self) -> str:
        return f"<Spell of {self.address}: {self.in_use} of {self.size} in use>"
