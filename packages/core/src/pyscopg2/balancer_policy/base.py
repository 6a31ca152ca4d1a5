"""What a balancer policy is."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from pyscopg2.core.selection import Candidate

CandidateT = TypeVar("CandidateT", bound=Candidate)


class BalancerPolicy(Protocol):
    """Chooses one host of those that may serve a request and have a free place.

    Any object with this method will do. A manager asks its policy from the event loop's thread
    only, and only where there is a choice: with one candidate nobody asks.

    One that looks at `Candidate.latency` has an attribute ``needs_latency``, which is True: without
    it only checks are timed, and not what happens when connections are given back.
    """

    def choose(self, candidates: Sequence[CandidateT], /) -> CandidateT:
        """Return one of ``candidates``, at once: never empty, in the order of the DSN."""
        ...
