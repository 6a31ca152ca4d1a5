"""A random host, the faster ones more often."""

import random
from collections.abc import Sequence

from pyscopg2.balancer_policy.base import CandidateT

_SHORTEST = 1e-6
"""Seconds; keeps the weight of an answer in no time finite."""


class RandomWeightedBalancerPolicy:
    """Takes a random host, with a weight inverse to its recent time, the median of its last five
    checks: three of them show that a host has become slow, or fast again.

    A host that has not been timed yet weighs as much as the fastest one.
    """

    def choose(self, candidates: Sequence[CandidateT], /) -> CandidateT:
        times = [candidate.recent_time for candidate in candidates]
        fastest = min((time for time in times if time is not None), default=_SHORTEST)
        weights = [1 / max(fastest if time is None else time, _SHORTEST) for time in times]
        return random.choices(candidates, weights)[0]
