"""One operation of a worker, as it goes from a contestant's process to the bench."""

from typing import Literal, NamedTuple

Kind = Literal["write", "read"]


class Operation(NamedTuple):
    """All times are seconds of the machine's monotonic clock, which all processes share."""

    kind: Kind
    began: float
    """When the worker asked for a connection."""
    got: float | None
    """When it had one, and sent its statement."""
    answered: float | None
    """When the server's answer was there; of a write, its acknowledgement."""
    ended: float | None
    """When the connection was given back, or the error was there; None: it hung to the end."""
    host: str | None
    """The server that answered."""
    error: str | None
    """The class of the exception."""
    row: int | None
    """What a write inserted."""

    @property
    def succeeded(self) -> bool:
        return self.answered is not None and self.error is None
