"""How fresh a read wants its replica to be."""

import math
from typing import NamedTuple

from pyscopg2.core.topology.freshness import Freshness
from pyscopg2.core.wal import WalPosition


class Bound(NamedTuple):
    """What a replica has to have replayed to serve a read. A tuple, for it is compared often."""

    max_lag: float = math.inf
    """Everything that was committed so many seconds ago, or longer."""
    after: WalPosition | None = None
    """Everything that was committed before this position."""
    since: float = -math.inf
    """Everything that was committed before this moment, on `stopwatch.clock`."""
    masters_at: float = -math.inf
    """The moment from which on a master may serve where no replica is proven to have replayed it,
    if the request allows that at all."""
    is_explicit: bool = True
    """The user named the position: one of another system is an error. Not so one of a session's,
    whose system may be replaced meanwhile."""

    def is_met(self, known: Freshness, now: float) -> bool:
        """By what is known of a host. ``now``: the moment, on `stopwatch.clock`."""
        moment = known.moment
        if moment < now - self.max_lag or moment < self.since:
            return False
        if self.after is None:
            return True
        if not self.is_explicit and known.is_elsewhere(self.after):
            # A session wrote it before the cluster was replaced.
            return True
        return known.covers(self.after)

    def describe(self) -> str:
        """What is asked for, in words."""
        words: list[str] = []
        if self.max_lag < math.inf:
            words.append(f"at most {self.max_lag:g} s behind")
        if self.after is not None or self.since > -math.inf:
            words.append("not behind a write of its own")
        return " and ".join(words)
