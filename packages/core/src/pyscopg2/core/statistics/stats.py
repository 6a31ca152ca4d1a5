"""The numbers of one moment: frozen values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pyscopg2.core.statistics.distribution import Distribution
from pyscopg2.core.topology.host_state import Role


@dataclass(frozen=True, slots=True)
class HostStats:
    """One host's. Counts are from the manager's making on, whichever pools the host has had since;
    times are in seconds."""

    address: str
    role: Role
    serving: bool
    """Whether its connections may be handed out at all."""
    size: int | None
    """How many connections users may have at a time; None: no limit, or no pool."""
    in_use: int
    """Connections that are out, being opened, or on their way back, those of retired pools
    included."""
    idle: int | None
    """Open connections of the pool that nobody uses; None where the driver does not tell."""
    idle_min: int | None
    """So many the pool keeps at least; None likewise."""
    idle_max: int | None
    """So many it keeps at most; None likewise."""
    waiting: int
    """Acquires that wait for a slot, and would take one here. One may count at several hosts."""
    lag: float | None
    """How far behind the master it is at most, as far as that is proven; a master's is 0. None:
    nothing is."""
    response_time: float | None
    """The median of its last checks."""
    acquires: int
    """Those that got a connection."""
    connects: int
    """Those of them for which the driver did not have one at once."""
    failed_connects: int
    """Connects that failed, or took far too long."""
    checks: int
    failed_checks: int
    terminated: int
    """Connections that were cut off while a user had them."""
    retired: int
    """Pools that were."""
    wait_time: Distribution | None = None
    """How long acquires took; None unless `BasePoolManager.record_times` was called."""
    use_time: Distribution | None = None
    """How long connections were out; None likewise."""
    connect_time: Distribution | None = None
    """How long the driver took where it did not have one at once; None likewise."""


@dataclass(frozen=True, slots=True)
class Stats:
    """All hosts', in the order of the DSN."""

    hosts: tuple[HostStats, ...]
    waiting: int
    """Acquires that wait for a slot."""
    timeouts: Mapping[str, int]
    """Acquires that raised `AcquireTimeoutError`, by what was in the way: a `Hindrance`'s value."""
    failovers: int
    """How often a master was named that was not the last one."""

    @property
    def in_use(self) -> int:
        return sum(host.in_use for host in self.hosts)

    @property
    def acquires(self) -> int:
        return sum(host.acquires for host in self.hosts)

    @property
    def timed_out(self) -> int:
        """Acquires that raised `AcquireTimeoutError`."""
        return sum(self.timeouts.values())

    def __iter__(self) -> Iterator[HostStats]:
        return iter(self.hosts)

    def __getitem__(self, address: str) -> HostStats:
        """One host's; `KeyError` where it is not of these."""
        for host in self.hosts:
            if host.address == address:
                return host
        raise KeyError(address)
