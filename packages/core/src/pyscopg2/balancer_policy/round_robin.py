"""One host after the other."""

from collections.abc import Sequence

from pyscopg2.balancer_policy.base import Candidate, CandidateT


class RoundRobinBalancerPolicy:
    """Takes turns: the host whose last turn is the longest ago.

    So it stays fair when hosts come and go, and when one is passed over because it is full. A
    host that returns has its turn next, once; it does not catch up on those it missed.
    """

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}
        self._turn = 0

    def choose(self, candidates: Sequence[CandidateT], /) -> CandidateT:
        chosen = min(candidates, key=self._last_turn)
        self._turn += 1
        self._turns[chosen.address] = self._turn
        return chosen

    def _last_turn(self, candidate: Candidate) -> int:
        return self._turns.get(candidate.address, 0)
