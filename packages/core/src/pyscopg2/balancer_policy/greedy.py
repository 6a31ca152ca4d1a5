"""The host with the most free connections."""

import random
from collections.abc import Sequence

from pyscopg2.balancer_policy.base import CandidateT


class GreedyBalancerPolicy:
    """Takes the host with the most free connections, a random one of several."""

    def choose(self, candidates: Sequence[CandidateT], /) -> CandidateT:
        most = max(candidate.free for candidate in candidates)
        return random.choice([c for c in candidates if c.free == most])
