"""What the load has seen: counts, and the moments that an outage is measured by."""

import enum
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["write", "read"]
KINDS: tuple[Kind, ...] = ("write", "read")


class Stage(enum.Enum):
    """The parts of the story by which operations are counted."""

    BEFORE = "before"
    """Until the master is killed."""
    OUTAGE = "outage"
    """Until the first write on the new master."""
    PROMOTED = "promoted"
    """Until the old master serves as a replica."""
    REJOINED = "rejoined"
    """Until the end."""


class Ledger:
    """Counts operations by stage, kind and host. All times are seconds of `clock`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.stage = Stage.BEFORE
        self.successor: str | None = None
        """The host whose first write ends the outage."""
        self.done: Counter[tuple[Stage, Kind, str]] = Counter()
        self.failed: Counter[tuple[Stage, Kind, str]] = Counter()
        """By the name of the error."""
        self.failed_on: Counter[str] = Counter()
        """By host, where the error met a connection that was out already."""
        self.first_write: dict[str, float] = {}
        self.last_write: dict[str, float] = {}
        self.longest_pause: dict[Kind, float] = {}
        """The longest time from one success to the next."""
        self.acknowledged: set[int] = set()
        self.in_doubt: set[int] = set()
        """Writes that failed while they were under way: the server may have committed them."""
        self._last_success: dict[Kind, float] = {}

    def success(self, kind: Kind, host: str) -> None:
        now = self._clock()
        if kind == "write" and host == self.successor and self.stage is Stage.OUTAGE:
            self.stage = Stage.PROMOTED
        self.done[self.stage, kind, host] += 1
        pause = now - self._last_success.get(kind, now)
        self.longest_pause[kind] = max(pause, self.longest_pause.get(kind, 0.0))
        self._last_success[kind] = now
        if kind == "write":
            self.first_write.setdefault(host, now)
            self.last_write[host] = now

    def failure(self, kind: Kind, error: Exception, host: str | None = None) -> None:
        self.failed[self.stage, kind, type(error).__name__] += 1
        if host is not None:
            self.failed_on[host] += 1

    def count(self, kind: Kind, host: str | None = None, stage: Stage | None = None) -> int:
        """How many succeeded: all, or on one host, or in one stage."""
        return sum(
            number
            for (in_stage, of_kind, on_host), number in self.done.items()
            if of_kind == kind and host in (None, on_host) and stage in (None, in_stage)
        )

    def errors(self, kind: Kind | None = None, stage: Stage | None = None) -> Counter[str]:
        """How many failed, by the name of the error: all, or of one kind, or in one stage."""
        found: Counter[str] = Counter()
        for (in_stage, of_kind, name), number in self.failed.items():
            if kind in (None, of_kind) and stage in (None, in_stage):
                found[name] += number
        return found


@dataclass(frozen=True, slots=True)
class Rates:
    """Operations a second."""

    writes: float = 0.0
    reads: float = 0.0
    errors: float = 0.0


class Meter:
    """Turns a ledger's counts into rates over the last second or so."""

    def __init__(self, ledger: Ledger, hosts: tuple[str, ...], window: int = 5) -> None:
        self._ledger = ledger
        self._hosts = hosts
        self._looks: deque[tuple[float, dict[str | None, Rates]]] = deque(maxlen=window)
        self.history: dict[Kind, deque[float]] = {kind: deque(maxlen=400) for kind in KINDS}
        """Operations a second from each look to the next."""

    def look(self, now: float) -> dict[str | None, Rates]:
        """The rates of each host, and under None those of all."""
        ledger = self._ledger
        counts: dict[str | None, Rates] = {
            host: Rates(
                ledger.count("write", host), ledger.count("read", host), ledger.failed_on[host]
            )
            for host in self._hosts
        }
        counts[None] = Rates(
            ledger.count("write"), ledger.count("read"), sum(ledger.failed.values())
        )
        if self._looks:
            latest, before = self._looks[-1]
            step = _difference(counts[None], before[None], now - latest)
            self.history["write"].append(step.writes)
            self.history["read"].append(step.reads)
        self._looks.append((now, counts))
        first, then = self._looks[0]
        return {host: _difference(counts[host], then[host], now - first) for host in counts}


def _difference(new: Rates, old: Rates, seconds: float) -> Rates:
    if seconds <= 0:
        return Rates()
    return Rates(
        (new.writes - old.writes) / seconds,
        (new.reads - old.reads) / seconds,
        (new.errors - old.errors) / seconds,
    )
