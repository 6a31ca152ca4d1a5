"""Who may serve a request: every rule about it stands here."""

from typing import NamedTuple, Protocol

from pyscopg2.core.topology import HostState, Topology


class Candidate(Protocol):
    """A host that may serve and has a free place, as a balancer policy sees it."""

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
    def latency(self) -> float | None:
        """A decaying peak of what its checks took, and of what the server took to answer while
        connections were given back, in seconds; None before the first check. The latter for
        policies with ``needs_latency`` only.

        Higher at once when the host slows down, lower by and by when it recovers. How long users
        keep a connection, and what a new one costs, is not in it.
        """
        ...


class Request(NamedTuple):
    """What somebody asks for. A tuple: it is the key of its line, and hashing it must be cheap."""

    read_only: bool = False
    fallback_master: bool = False
    """Reads only: go to a master while no replica is in service."""
    masters_too: bool = False
    """Reads only: masters are candidates beside the replicas."""
    pool_id: int | None = None
    """``id()`` of the one driver pool that is asked for, whatever its host's role."""

    def __str__(self) -> str:
        if self.pool_id is not None:
            return "this pool"
        return "a replica" if self.read_only else "a master"


def eligible(topology: Topology, request: Request) -> tuple[HostState, ...]:
    """The hosts that may serve this request, in the order of the DSN."""
    if request.pool_id is not None:
        return tuple(h for h in topology if h.serving and id(h.pool) == request.pool_id)
    if not request.read_only:
        return topology.masters
    if request.masters_too:
        return tuple(host for host in topology if host.serving)
    if request.fallback_master and not topology.replicas:
        return topology.masters
    return topology.replicas
