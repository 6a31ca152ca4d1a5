"""What a balancer policy is, and what it sees of the hosts."""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """A host that may serve and has a free slot, as a balancer policy sees it."""

    @property
    def address(self) -> str: ...

    @property
    def free(self) -> int:
        """Connections that can be taken now: those out and those about to be are not counted."""
        ...

    @property
    def in_use(self) -> int:
        """Connections that are out or about to be."""
        ...

    @property
    def response_time(self) -> float | None:
        """The median of its last checks, in seconds; None before the first."""
        ...

    @property
    def recent_time(self) -> float | None:
        """The median of its last five checks, in seconds: three of them show what has changed, and
        one that is out of line shows never. None before the first."""
        ...

    @property
    def latency(self) -> float | None:
        """A decaying peak of what its checks took, and of what the server took to answer while
        connections were given back, in seconds; None before the first check. The latter for
        policies with ``needs_latency`` only.

        Higher at once when the host slows down, lower by and by when it recovers. How long users
        keep a connection, and what a new one costs, is not in it.
        """
        ...

    @property
    def lag(self) -> float | None:
        """Seconds that it is behind the master at most, as far as that is proven; 0.0 for a master,
        None where it is not known."""
        ...


CandidateT = TypeVar("CandidateT", bound=Candidate)


class BalancerPolicy(Protocol):
    """Chooses one host of those that may serve a request and have a free slot.

    Any object with this method will do. A manager asks its policy from the event loop's thread
    only, and only where there is a choice: with one candidate nobody asks.

    One that looks at `Candidate.latency` has an attribute ``needs_latency``, which is True: without
    it only checks are timed, and not what happens when connections are given back.
    """

    def choose(self, candidates: Sequence[CandidateT], /) -> CandidateT:
        """Return one of ``candidates``, at once: never empty, in the order of the DSN."""
        ...
