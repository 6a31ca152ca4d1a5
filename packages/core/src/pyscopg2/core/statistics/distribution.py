"""How durations are distributed."""

from bisect import bisect_left
from dataclasses import dataclass

BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Seconds: from a slot that was free to the timeouts that people set."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """So many durations, in seconds, and how they are distributed."""

    count: int
    sum: float
    """Of all, in seconds."""
    buckets: tuple[tuple[float, int], ...]
    """Upper bounds, in seconds, and how many were not longer: cumulative, as Prometheus has it.
    Those that were longer than the last bound are in ``count`` alone."""


class Durations:
    """Collects them."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds

    def distribution(self) -> Distribution:
        """Of all so far."""
        total = 0
        buckets: list[tuple[float, int]] = []
        for bound, count in zip(BOUNDS, self._counts, strict=False):
            total += count
            buckets.append((bound, total))
        return Distribution(total + self._counts[-1], self._sum, tuple(buckets))
