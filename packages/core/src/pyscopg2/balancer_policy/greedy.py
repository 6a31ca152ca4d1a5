"""The host with the most free connections."""

import random
from collections.abc import Sequence

from pyscopg2.balancer_policy.base import CandidateT


class GreedyBalancerPolicy:
    """Takes the host with the most free connections, a random one of several."""

    def choose(self, candidates: Sequence[CandidateT], /) -> CandidateT:
        free = [candidate.free for candidate in candidates]
        most = max(free)
        best = [c for c, count in zip(candidates, free, strict=True) if count == most]
        return best[int(random.random() * len(best))]
