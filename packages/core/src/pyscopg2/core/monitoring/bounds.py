"""How long a monitor gives to what it does at its host, and that it keeps to that."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from pyscopg2.core.monitoring.attention import MISSING_GAP
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.timing.alarm import Alarm
from pyscopg2.core.timing.attempt import attempt
from pyscopg2.core.timing.background import Background
from pyscopg2.core.timing.stopwatch import Stopwatch
from pyscopg2.core.topology.role_query import Answer, RoleQuery
from pyscopg2.core.topology.store import Store

T = TypeVar("T")

OVERDUE = 10
"""A check that takes so many times the host's usual time is far beyond it."""

ROUND_TRIPS = 12
"""To connect takes so many round trips at the most, TLS and a password included."""

LONGEST_OPENING = 5.0
"""Seconds that a connect is given at the most, unless the refresh timeout is longer. Each that was
too slow is followed by one that may take twice as long."""


class Bounds:
    """Of one host, by what it took to answer so far."""

    def __init__(
        self,
        address: str,
        store: Store,
        background: Background,
        refresh_timeout: float,
        window_size: int,
    ) -> None:
        self._address = address
        self._store = store
        self.background = background
        self.refresh_timeout = refresh_timeout
        self._stopwatch = Stopwatch(window_size)
        self.round_trip: float | None = None
        """What the last answer took, in seconds."""
        self.asked_at = -math.inf
        """When the question was sent that was answered last, on `stopwatch.clock`, in seconds."""

    @property
    def response_time(self) -> float | None:
        """The median of the last answers, in seconds; None before the first."""
        return self._stopwatch.median

    def opening(self, slow: int, longest: float = LONGEST_OPENING) -> float:
        """Seconds that an opening is given, after so many in a row that were too slow."""
        usual = ROUND_TRIPS * (self.response_time or 0.0)
        least = max(self.refresh_timeout, usual)
        return min(least * float(2 ** min(slow, 10)), max(longest, least))

    async def timed(self, query: RoleQuery) -> Answer:
        """Ask, and note what that took."""
        began = stopwatch.clock()
        answer = await query.ask(asyncio.get_running_loop().time())
        self.asked_at = began
        self.round_trip = stopwatch.clock() - began
        self._stopwatch.add(self.round_trip)
        return answer

    async def attempt(
        self, work: Awaitable[T], seconds: float, late: TimeoutError, cut: Callable[[], object]
    ) -> T:
        """`attempt` a part of a check. Far beyond its usual time, the host is overdue."""
        loop = asyncio.get_running_loop()
        usual = self.response_time or self.refresh_timeout
        overdue = partial(self._store.mark_overdue, self._address)
        alarm = Alarm(loop, max(MISSING_GAP, OVERDUE * usual), overdue)
        try:
            return await attempt(work, seconds, late, self.background, cut)
        finally:
            alarm.cancel()
