"""What somebody asks for."""

from typing import NamedTuple


class Request(NamedTuple):
    """What somebody asks for. A tuple, which is hashed cheaply: it is the key of its wait queue."""

    read_only: bool = False
    fallback_master: bool = False
    """Reads only: go to a master while no replica is in service."""
    masters_too: bool = False
    """Reads only: masters are candidates beside the replicas."""
    bounded: bool = False
    """Reads only: each waits with a `Bound` of its own, and a replica has to be proven to keep it.
    With ``fallback_master`` masters are candidates, too, for those that no replica can serve."""
    pool_id: int | None = None
    """``id()`` of the one driver pool that is asked for, whatever its host's role."""

    def with_bounds(self) -> "Request":
        """The same, where each has a bound."""
        return self._replace(bounded=True)

    def __str__(self) -> str:
        if self.pool_id is not None:
            return "this pool"
        return "a replica" if self.read_only else "a master"
