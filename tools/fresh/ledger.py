"""What was committed, and when; and whether a read has missed any of it."""

import time
from collections import defaultdict
from dataclasses import dataclass, field

TABLE = """
    CREATE TABLE IF NOT EXISTS fresh_writes (
        writer int, number int, PRIMARY KEY (writer, number)
    )
"""

SEEN = """
    SELECT coalesce(json_object_agg(writer, numbers), '{}')
    FROM (
        SELECT writer, array_agg(number) AS numbers FROM fresh_writes GROUP BY writer
    ) AS of_each
"""


@dataclass
class Read:
    """One that was served."""

    got_at: float
    """When its connection was handed out, on `time.perf_counter`."""
    max_lag: float
    waited: float
    """Seconds."""
    address: str
    is_replica: bool
    seen: dict[int, set[int]]
    """The numbers of each writer's."""


@dataclass
class Ledger:
    """Each writer numbers its commits from 1 on."""

    committed: dict[int, list[float]] = field(
        default_factory=lambda: defaultdict[int, list[float]](list)
    )
    """By writer, when each commit had been done."""
    reads: list[Read] = field(default_factory=list[Read])
    timed_out: int = 0

    def commit(self, writer: int) -> None:
        self.committed[writer].append(time.perf_counter())

    def misses(self, kept: dict[int, set[int]]) -> list[str]:
        """Reads that lack a commit which their bound covers. ``kept``: what is there in the end;
        what was lost in a promotion, nobody can see."""
        found: list[str] = []
        for read in self.reads:
            until = read.got_at - read.max_lag
            for writer, times in self.committed.items():
                here = read.seen.get(writer, set())
                missing = kept.get(writer, set()) - here
                late = sorted(n for n in missing if n <= len(times) and times[n - 1] < until)
                if late:
                    text = f"writer {writer}: {late[:5]} of {read.max_lag} s, on {read.address}"
                    found.append(f"{text}, {until - times[late[0] - 1]:.3f} s too late")
        return found
