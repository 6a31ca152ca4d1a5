"""What is counted, from a manager's making to its end."""

from collections import defaultdict
from collections.abc import Sequence

from pyscopg2.core.statistics.distribution import Durations
from pyscopg2.core.topology.snapshot import Change, Topology


class Tally:
    """Of one host, whichever pools it has had."""

    __slots__ = (
        "acquires",
        "checks",
        "connects",
        "failed_checks",
        "failed_connects",
        "retired",
        "terminated",
    )

    def __init__(self) -> None:
        self.acquires = 0
        self.connects = 0
        self.failed_connects = 0
        self.checks = 0
        self.failed_checks = 0
        self.terminated = 0
        self.retired = 0


class Tallies:
    """Of all hosts; and what belongs to none."""

    def __init__(self) -> None:
        self.hosts: defaultdict[str, Tally] = defaultdict(Tally)
        """By address."""
        self.timeouts: defaultdict[str, int] = defaultdict(int)
        """Acquires that timed out, by `Hindrance`'s value."""
        self.failovers = 0
        """How often a master was named that was not the last one."""
        self._master: str | None = None
        """The last one."""

    def follow(self, after: Topology, changes: Sequence[Change]) -> None:
        """The store's listener: counts checks, and failovers."""
        for old, new in changes:
            # A pool that has opened is told of by the number of a check that was before.
            if new.serial != old.serial:
                tally = self.hosts[new.address]
                tally.checks += 1
                tally.failed_checks += new.error is not None and new.error is not old.error
        masters = after.masters
        if masters and masters[0].address != self._master:
            self.failovers += self._master is not None
            self._master = masters[0].address


class Times:
    """An `AcquireObserver` that collects how long acquires took, and how long their connections
    were used, for each host."""

    def __init__(self) -> None:
        self.waits: defaultdict[str, Durations] = defaultdict(Durations)
        """By address."""
        self.connects: defaultdict[str, Durations] = defaultdict(Durations)
        self.uses: defaultdict[str, Durations] = defaultdict(Durations)

    def acquired(self, address: str, seconds: float, waited: bool) -> None:
        self.waits[address].add(seconds)

    def failed(self, seconds: float, error: BaseException) -> None:
        pass

    def connected(self, address: str, seconds: float) -> None:
        self.connects[address].add(seconds)

    def released(self, address: str, seconds: float) -> None:
        self.uses[address].add(seconds)
