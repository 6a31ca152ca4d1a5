"""The host that answers soonest under its load."""

import math
import random
import reprlib
import sys
from collections.abc import Sequence

from pyscopg2.balancer_policy.base import CandidateT


class PeakEwmaBalancerPolicy:
    """Takes the host whose latency times its load is the least, a random one of several.

    The latency is a decaying peak of what the host was heard to take, counted in whole multiples
    of the fastest host's; the load is 1 for a host with nothing in use, 2 for one that is full.
    So hosts that are not twice as slow as the fastest share the work evenly, and one that is gets
    what they have no slot for. A host that has too much to do answers late, and so gets less.
    """

    needs_latency = True

    def __init__(self, floor: float = 0.002) -> None:
        """
        :param floor: seconds; all that is faster counts as this fast. In so short a time our own
            event loop, or a busy core, tells more than the host.
        :raises TypeError: it is no number.
        :raises ValueError: it is not above 0, or not finite.
        """
        # Callers without a type checker.
        if isinstance(floor, bool) or not isinstance(floor, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"floor must be a number, not {type(floor).__name__}")
        if not 0 < floor <= sys.float_info.max:
            raise ValueError(f"floor must be above 0 and finite, not {reprlib.repr(floor)}")
        self._floor = floor

    def choose(self, candidates: Sequence[CandidateT], /) -> CandidateT:
        latencies = [candidate.latency or 0.0 for candidate in candidates]
        fastest = max(self._floor, min(latencies))
        best: list[CandidateT] = []
        # The second number tells apart what is hardly in use: pools without a limit.
        least = (math.inf, 0)
        for candidate, latency in zip(candidates, latencies, strict=True):
            in_use = candidate.in_use
            cost = 1 + in_use / (in_use + candidate.free)
            if latency > fastest:
                cost *= latency // fastest
            if (cost, in_use) < least:
                least = (cost, in_use)
                best = [candidate]
            elif (cost, in_use) == least:
                best.append(candidate)
        return best[int(random.random() * len(best))]
