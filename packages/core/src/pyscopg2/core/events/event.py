"""What happens to a manager, told as frozen values.

The order is that in which things happened. What one check finds is told together:

1. `CheckFailed`, or `CheckRecovered`;
2. `HostChanged` of each host that is not what it was, in the order of the DSN;
3. `MasterChanged`;
4. `PoolRetired` and `PoolOpened` of each host, in the order of the DSN;
5. `ConnectionsTerminated`.

`ManagerStarted` comes first of all, and `ManagerClosed` last. A pool's `PoolOpened` is told before
any of its connections is handed out, its `PoolClosed` after its `PoolRetired`, once the driver has
closed it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pyscopg2.core.diagnosis.standing import Explanation
from pyscopg2.core.topology.host_state import HostState


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""

    at: float = field(default_factory=time.time)
    """When, in seconds since the epoch, by the system's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerStarted(Event):
    """It was used for the first time."""

    addresses: tuple[str, ...]
    """Of its hosts, in the order of the DSN."""

    def __str__(self) -> str:
        return f"started: {', '.join(self.addresses)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerClosed(Event):
    """Everything has ended. Nothing is told after it."""

    def __str__(self) -> str:
        return "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFailed(Event):
    """A check of a host failed, or its pool could not be opened. Told of each that fails."""

    address: str
    reason: str
    """The error in one line, without secrets."""
    hopeless: bool
    """Waiting will not heal it."""
    error: BaseException | None = field(repr=False, compare=False)
    """The driver's own."""

    def __str__(self) -> str:
        return f"{self.address}: check failed: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRecovered(Event):
    """The first check of a host that is good, after one or more that failed."""

    address: str
    failures: int
    """How many had failed in a row."""
    failed_for: float
    """Seconds since the first of them."""

    def __str__(self) -> str:
        return f"{self.address}: answers again, after {self.failed_for:.3g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostChanged(Event):
    """A host is in another state: its role, whether it is overdue, in service, or whom it yields
    to. A check that finds the same is none."""

    before: HostState
    after: HostState

    @property
    def address(self) -> str:
        return self.after.address

    def __str__(self) -> str:
        was = self.before.role
        return str(self.after) if was is self.after.role else f"{self.after} (was {was.value})"


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterChanged(Event):
    """Another host takes writes, or none does, or one does again. With ``fencing=False`` there may
    be several at once: then it is the first in the order of the DSN."""

    before: str | None
    """Its address; None: there was none."""
    after: str | None
    """Its address; None: there is none."""

    def __str__(self) -> str:
        return f"master: {self.before or 'none'} -> {self.after or 'none'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOpened(Event):
    """A host has a new driver pool. None of its connections has been handed out yet."""

    address: str
    pool: object = field(repr=False, compare=False)
    """The driver's own."""

    def __str__(self) -> str:
        return f"{self.address}: pool opened"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRetired(Event):
    """A driver pool hands out nothing more. It closes with its last checkout, or when the time for
    that is up."""

    address: str
    pool: object = field(repr=False, compare=False)
    why: str

    def __str__(self) -> str:
        return f"{self.address}: pool retired: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolClosed(Event):
    """The driver has closed a retired pool, or terminated it."""

    address: str
    pool: object = field(repr=False, compare=False)
    why: str

    def __str__(self) -> str:
        return f"{self.address}: pool closed: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionsTerminated(Event):
    """Connections that users had were cut off."""

    address: str
    count: int
    why: str

    def __str__(self) -> str:
        return f"{self.address}: {self.count} connections terminated: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireTimedOut(Event):
    """An acquire raised `AcquireTimeoutError`."""

    timeout: float
    """How long it had, in seconds."""
    explanation: Explanation
    """What it asked for, and why each host did not serve."""

    def __str__(self) -> str:
        return f"timed out after {self.timeout:g} s: {self.explanation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsDropped(Event):
    """A stream of events was not read fast enough: so many of the oldest are missing here."""

    count: int

    def __str__(self) -> str:
        return f"{self.count} events dropped"
