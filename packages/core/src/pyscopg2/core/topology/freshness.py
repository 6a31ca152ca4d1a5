"""How far behind the master a replica is at most: what is proven, and what is not known."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

from pyscopg2.core.topology.host_state import HostState, Role
from pyscopg2.core.topology.lsn_clock import LsnClock
from pyscopg2.core.topology.role_query import Answer
from pyscopg2.core.wal import WalPosition


@dataclass(frozen=True, slots=True)
class Freshness:
    """Of one host, as of its last check and the master's. A master is never behind."""

    moment: float = -math.inf
    """Everything that was committed before it, on `stopwatch.clock`, has been replayed there; minus
    infinity where nothing is known to have been."""
    reason: str = ""
    """Why nothing is known."""
    clock: LsnClock | None = None
    """Of the master that it is known to follow."""
    replayed: int = 0
    """Its position in that master's log, in bytes."""
    is_direct: bool = True
    """It is of the server that its address names. If not, another connection to that address may
    lead to another server, which has to be asked itself."""

    def covers(self, position: WalPosition) -> bool:
        """Whether what was committed up to ``position`` has been replayed there, or is lost.

        Of an older timeline than the master's no more is left than what was before the present one
        began; a standby may receive that, and not have replayed so far yet.
        """
        clock = self.clock
        if clock is None or position.system_identifier != clock.system:
            return False
        if position.timeline > clock.timeline:
            return False
        if position.timeline < clock.timeline:
            return self.replayed >= min(position.lsn, clock.began_at)
        return clock.covers(self.replayed, position.lsn)

    def is_elsewhere(self, position: WalPosition) -> bool:
        """Whether it is known to follow a master of another system than ``position``'s."""
        return self.clock is not None and self.clock.system != position.system_identifier

    def lag(self, now: float) -> float | None:
        """Seconds that it is behind the master at most, at this moment on `stopwatch.clock`; None
        where nothing is proven."""
        return None if self.moment == -math.inf else max(0.0, now - self.moment)

    def describe(self, now: float) -> str:
        """In words, at this moment on `stopwatch.clock`."""
        if self.reason:
            return f"not known how far behind: {self.reason}"
        where = "" if self.is_direct else ", where its address leads now"
        return f"{self.lag(now):.3g} s behind at most{where}"


def freshness(host: HostState, clock: LsnClock | None) -> Freshness:
    """``clock``: the master's; None where there is none, or it does not tell."""
    if host.role is Role.MASTER:
        return Freshness(math.inf, "", host.clock, sys.maxsize, host.is_direct)
    if host.answer is None or not host.answering or host.role is not Role.REPLICA:
        return Freshness(reason="it does not answer")
    return replace(told(host.answer, clock), is_direct=host.is_direct)


def told(answer: Answer, clock: LsnClock | None) -> Freshness:
    """Of a server that says this just now, whichever it is.

    A standby counts where it is known to follow the master's timeline: on another one, positions
    are of another history.
    """
    if clock is None:
        return Freshness(reason="the master's position is not known")
    if answer.system_identifier is None:
        return Freshness(reason="it tells no position")
    if answer.system_identifier != clock.system:
        return Freshness(reason="it is of another system")
    if answer.wal is not None and answer.timeline == clock.timeline:
        return Freshness(math.inf, "", clock, sys.maxsize)
    if not answer.in_recovery or answer.lsn is None:
        return Freshness(reason="it replays nothing")
    follows = answer.timeline if answer.receives is None else answer.receives
    if follows != clock.timeline:
        hint = " (pg_monitor tells sooner)" if answer.receives is None else ""
        return Freshness(
            reason=f"last seen on timeline {follows}, the master is on {clock.timeline}{hint}"
        )
    moment = clock.proves(answer.lsn)
    reason = "further than the master is known" if moment == -math.inf else ""
    return Freshness(moment, reason, clock, answer.lsn)
