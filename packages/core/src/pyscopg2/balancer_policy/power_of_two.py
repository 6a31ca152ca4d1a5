"""The less loaded of two random hosts."""

import random
from collections.abc import Sequence

from pyscopg2.balancer_policy.base import CandidateT


class PowerOfTwoBalancerPolicy:
    """Takes two random hosts, and of these the one with fewer connections in use.

    Many clients that look at the same loads don't all run to the same host, as they do where each
    takes the least loaded of all.
    """

    def choose(self, candidates: Sequence[CandidateT], /) -> CandidateT:
        count = len(candidates)
        if count == 1:
            return candidates[0]
        one = int(random.random() * count)
        other = int(random.random() * (count - 1))
        first = candidates[one]
        second = candidates[other + (other >= one)]
        return first if first.in_use <= second.in_use else second
