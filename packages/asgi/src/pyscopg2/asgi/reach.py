"""How far what a client has written reaches in the log."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyscopg2.core.causal import CausalSession
from pyscopg2.core.topology import Topology
from pyscopg2.core.wal import WalPosition


@dataclass(frozen=True, slots=True)
class Reach:
    """What the reads of a client have to see."""

    position: WalPosition | None = None
    """All that was committed up to here. None: nothing."""
    waits: bool = False
    """And all that was committed before the request came, since not everything that the client has
    written is known to be covered by ``position``."""

    def merge(self, other: Reach) -> Reach:
        """What both have to see."""
        return Reach(_later(self.position, other.position), self.waits or other.waits)


NOTHING = Reach()


def reach_of(session: CausalSession, topology: Topology) -> Reach:
    """Of what was written in a session so far, in words that another process understands.

    A moment is of this process's clock alone. Where the master was asked at that moment or later,
    by a check, what it told of its log covers everything that was committed before the moment.
    """
    position = session.position
    waits = session.is_writing
    if session.since > -math.inf:
        covering = _covering(session.since, topology)
        if covering is None or _is_older(covering, position):
            waits = True
        else:
            position = _later(covering, position)
    return Reach(position, waits)


def system_of(topology: Topology) -> int | None:
    """The identifier of the system that the manager is of; None while it is not known."""
    if topology.system is not None or topology.clock is None:
        return topology.system
    # Without fencing no system is chosen, and one master's is the only one that matters.
    return topology.clock.system


def _covering(moment: float, topology: Topology) -> WalPosition | None:
    """A position that covers everything that was committed before the moment; None: not known."""
    clock = topology.clock
    if clock is None or clock.samples[-1].asked_at < moment:
        return None
    return WalPosition(clock.system, clock.timeline, clock.samples[-1].insert)


def _is_older(position: WalPosition, other: WalPosition | None) -> bool:
    """Whether it is of an older timeline: the master that told it is a master no more."""
    return (
        other is not None
        and position.system_identifier == other.system_identifier
        and position.timeline < other.timeline
    )


def _later(position: WalPosition | None, other: WalPosition | None) -> WalPosition | None:
    """Of two systems, the first one's."""
    if position is None or other is None:
        return position or other
    if position.system_identifier != other.system_identifier:
        return position
    return position.merge(other)
