"""A connection that is out, and how far it is on its way through a user's hands."""

from enum import Enum, auto
from typing import Generic

from pyscopg2.core.adapter.protocol import ConnT, PoolT
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.returns import TaskRef
from pyscopg2.core.timing.watchdog import NOT_WAITING


class Stage(Enum):
    """In this order; some are left out on the way."""

    NEW = auto()
    """Not awaited or entered yet."""
    OBSERVED = auto()
    """About to be taken, and somebody is told of it."""
    OUT = auto()
    """It is being taken, or a user has it."""
    ENDED = auto()
    """A user has it, but the manager has terminated it, and gives it back by itself."""
    RETURNING = auto()
    """The user has given it back; its slot is not free yet."""
    BACK = auto()
    """It may be another user's."""


# An enumeration's attribute is looked up the slow way, and every release needs five of them.
NEW, OBSERVED, OUT, ENDED, RETURNING, BACK = Stage

HELD = frozenset({OUT, ENDED})
"""A user has it, or is about to."""


class Checkout(Generic[PoolT, ConnT]):
    """A connection that is out, or will be."""

    __slots__ = ("connection", "host_pool", "owner", "stage", "taken_at", "ticks")

    connection: ConnT
    host_pool: HostPool[PoolT]
    owner: TaskRef | None
    """The task that took it; None: anybody's. Not set where that is not known: in a block, which
    pays for nothing that it may not need."""
    taken_at: float
    """When it was, on `stopwatch.clock`. Set only where somebody observes."""

    def __init__(self) -> None:
        self.stage = NEW
        self.ticks = NOT_WAITING
        """Of the `Watchdog`, while the end of a block or a release waits for its answer."""


def checked_out(connection: ConnT, host_pool: HostPool[PoolT]) -> Checkout[PoolT, ConnT]:
    """The record of a connection that is out, and that no acquire waits for."""
    checkout = Checkout[PoolT, ConnT]()
    checkout.stage = OUT
    checkout.connection = connection
    checkout.host_pool = host_pool
    return checkout
