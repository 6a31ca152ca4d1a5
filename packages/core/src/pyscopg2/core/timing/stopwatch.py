"""How long things take, and the median of the last response times of one host."""

import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable

clock: Callable[[], float] = time.perf_counter
"""In seconds, for whatever is measured: called as ``stopwatch.clock()``, since virtual time puts
its own here while it runs.

The event loop's clock is for deadlines alone: uvloop's knows whole milliseconds only, in which a
server answers ten times.
"""


class Stopwatch:
    """Keeps the last ``window_size`` durations, in seconds, and their median."""

    __slots__ = ("_ordered", "_recent")

    def __init__(self, window_size: int = 128) -> None:
        if window_size < 1:
            raise ValueError(f"window_size must be at least 1, not {window_size}")
        self._recent: deque[float] = deque(maxlen=window_size)
        self._ordered: list[float] = []

    def add(self, seconds: float) -> None:
        """Record one duration; the oldest one beyond the window is forgotten."""
        if len(self._recent) == self._recent.maxlen:
            del self._ordered[bisect_left(self._ordered, self._recent[0])]
        self._recent.append(seconds)
        insort(self._ordered, seconds)

    @property
    def median(self) -> float | None:
        """In seconds; None before the first duration."""
        count = len(self._ordered)
        if not count:
            return None
        upper = self._ordered[count // 2]
        return upper if count % 2 else (self._ordered[count // 2 - 1] + upper) / 2
