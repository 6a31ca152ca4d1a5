"""What is known of one host, and what a check of it found: frozen values."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from pyscopg2.core.topology.lsn_clock import LsnClock, advance
from pyscopg2.core.topology.role_query import Answer
from pyscopg2.core.wal import format_lsn


class Role(enum.Enum):
    """The one role that a host has at a time."""

    UNKNOWN = "unknown"
    """Not checked yet, or forgotten."""
    MASTER = "master"
    REPLICA = "replica"
    """In recovery, or a primary that is set read-only: it serves reads."""
    SUPERSEDED = "superseded"
    """Last seen as a primary, while a host of its system is, or was, on a newer timeline."""
    RIVAL = "rival"
    """A primary on the very timeline of the master, which stays that."""
    FOREIGN = "foreign"
    """A server of another system than the one that counts."""
    UNAVAILABLE = "unavailable"
    """Its last check failed."""


SERVING = frozenset({Role.MASTER, Role.REPLICA})

SIDELINED = frozenset({Role.SUPERSEDED, Role.RIVAL, Role.FOREIGN})
"""Of hosts that may serve nobody though they answer."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one check of one host found: an answer, or the error that stood in its way.

    Both, where the host answers and yet no pool can be opened.
    """

    address: str
    serial: int
    """The number that the check took when it began; later checks have higher ones."""
    at: float
    """When the check ended, on the event loop's clock, in seconds."""
    answer: Answer | None = None
    error: BaseException | None = field(default=None, repr=False)
    reason: str = ""
    """The error in one line for people, without secrets."""
    hopeless: bool = False
    """Waiting will not heal this error: a wrong password, an unknown database, a bad option."""
    response_time: float | None = None
    """The median of the host's last response times, in seconds."""
    round_trip: float | None = None
    """What this check's own query took, in seconds; None where it was not answered."""
    asked_at: float = -math.inf
    """When the question was sent that this answers, on `stopwatch.clock`, in seconds."""
    told_at: float = math.inf
    """When the answer had come, on the same clock."""
    is_direct: bool = False
    """Whether the server that answered is known to be the one of this address, and no other one."""
    is_heard: Callable[[], bool] | None = field(default=None, repr=False)
    """Whether the connection over which it answered is open, as far as is known."""
    pool: object = field(default=None, repr=False)
    """The host's driver pool of now; None while it has none."""
    pool_size: int | None = None
    """The most connections that it ever holds; None where it has no limit."""


class Live:
    """What of a host's state means something in this process alone.

    A copy in depth, a pickle, and what is made of it for JSON, leave it behind: pools and
    connections can be none of these, and errors of drivers seldom.
    """

    __slots__ = ("error", "is_heard", "pool")

    def __init__(
        self,
        pool: object = None,
        error: BaseException | None = None,
        is_heard: Callable[[], bool] | None = None,
    ) -> None:
        self.pool = pool
        self.error = error
        self.is_heard = is_heard

    def __deepcopy__(self, _: object) -> Live:
        return Live()

    def __reduce__(self) -> tuple[type[Live], tuple[()]]:
        return Live, ()

    def __iter__(self) -> Iterator[tuple[str, object]]:
        """Nothing: encoders, FastAPI's for one, make a dictionary of what they do not know."""
        return iter(())


@dataclass(frozen=True, slots=True)
class HostState:
    """All that is known of one host. Equality, copies in depth and pickles leave out what is live:
    `pool` and `error` are None in a copy, and all else is as it was."""

    address: str
    role: Role = Role.UNKNOWN
    answer: Answer | None = None
    """The last answer, which may be older than the last check."""
    answered_at: float | None = None
    """When it answered last, on the event loop's clock, in seconds."""
    has_failed: bool = False
    """The last check has, or no pool can be opened: see `error`."""
    reason: str = ""
    """The error in one line for people, without secrets."""
    hopeless: bool = False
    """Waiting will not heal it: a wrong password, an unknown database, a bad option."""
    yields_to: str | None = None
    """The address that supersedes this one, or whose rival it is."""
    counting_system: int | None = None
    """Of a foreign host: the identifier of the system that counts."""
    overdue: bool = False
    """Its present check takes far longer than usual: the host may only be busy, or be lost."""
    response_time: float | None = None
    round_trip: float | None = None
    """Of the last check that was answered, in seconds."""
    is_direct: bool = False
    """Whether nothing stands between its address and the server that answered last."""
    clock: LsnClock | None = field(default=None, repr=False, compare=False)
    """Of a primary: what it has told of its log."""
    serial: int = 0
    has_pool: bool = False
    pool_size: int | None = None
    """The most connections that its pool ever holds; None where that has no limit."""
    live: Live = field(default_factory=Live, repr=False, compare=False)

    @property
    def pool(self) -> object:
        """The host's driver pool; None while it has none, and in a copy."""
        return self.live.pool

    @property
    def error(self) -> BaseException | None:
        """Of the last check; None where it succeeded, and in a copy."""
        return self.live.error

    @property
    def is_heard(self) -> Callable[[], bool] | None:
        """Whether the connection over which it answered last is open, as far as is known. While it
        is, no other server has taken its place, and it has not gone back."""
        return self.live.is_heard

    @property
    def serving(self) -> bool:
        """Whether its connections may be handed out at all."""
        return self.has_pool and self.role in SERVING

    @property
    def answering(self) -> bool:
        """Whether its last check succeeded."""
        return self.answer is not None and not self.has_failed

    @property
    def ready(self) -> bool:
        """Whether its last check succeeded, and its pool is open if it may serve."""
        return self.answering and (self.has_pool or self.role in SIDELINED)

    def as_dict(self) -> dict[str, object]:
        """For JSON: text, numbers, booleans and None. Times are in seconds, identifiers of systems
        text, since many readers of JSON know no numbers that large."""
        answer = self.answer
        system = None if answer is None else answer.system_identifier
        return {
            "address": self.address,
            "role": self.role.value,
            "serving": self.serving,
            "answering": self.answering,
            "ready": self.ready,
            "overdue": self.overdue,
            "hopeless": self.hopeless,
            "reason": self.reason or None,
            "yields_to": self.yields_to,
            "response_time": self.response_time,
            "round_trip": self.round_trip,
            "system_identifier": None if system is None else str(system),
            "timeline": None if answer is None else answer.timeline,
            "in_recovery": None if answer is None else answer.in_recovery,
            "read_only": None if answer is None else answer.read_only,
            "login_is_read_only": None if answer is None else answer.login_is_read_only,
            "lsn": None if answer is None or answer.lsn is None else format_lsn(answer.lsn),
        }

    @property
    def system(self) -> int | None:
        """The identifier of the system that it was last seen in; None where it did not tell."""
        return None if self.answer is None else self.answer.system_identifier

    def __str__(self) -> str:
        words = [f"{self.address} {self.role.value}"]
        if self.role is Role.SUPERSEDED:
            words.append(
                f" by {self.yields_to} (if that is gone for good: forget({self.yields_to!r}))"
            )
        elif self.role is Role.RIVAL:
            words.append(f" of {self.yields_to}, on the same timeline")
        elif self.role is Role.FOREIGN:
            words.append(
                f": of system {self.system}, while most hosts are of {self.counting_system}"
            )
        if self.answering and self.answer is not None:
            if not self.answer.rich:
                words.append(" (tells no timeline: no fencing)")
            if self.answer.login_is_read_only:
                words.append(" (this login's transactions are read-only)")
        if self.reason:
            words.append(f" ({self.reason})")
        if self.overdue:
            words.append(" (overdue with its check)")
        return "".join(words)


def observe(host: HostState, seen: Observation) -> HostState:
    """A host's state after a check; what a failed check did not tell stays as it was."""
    heard = host.is_heard if seen.answer is None else seen.is_heard
    after = replace(
        host,
        live=Live(seen.pool, seen.error, heard),
        has_failed=seen.error is not None,
        has_pool=seen.pool is not None,
        pool_size=seen.pool_size,
        reason=seen.reason,
        hopeless=seen.hopeless,
        serial=seen.serial,
        # A pool that opens is told of by the number of the last answer, while a later check may be
        # overdue.
        overdue=host.overdue and seen.serial <= host.serial,
    )
    if seen.answer is None:
        return after
    return replace(
        after,
        answer=seen.answer,
        answered_at=seen.at,
        response_time=seen.response_time,
        round_trip=seen.round_trip,
        is_direct=seen.is_direct,
        clock=advance(host.clock, seen.answer, seen.asked_at, seen.told_at),
    )


def facts(host: HostState) -> tuple[object, ...]:
    """All of a host's state that roles depend on."""
    answer = host.answer
    if answer is None:
        return (host.has_failed,)
    return (
        host.has_failed,
        answer.read_only,
        answer.in_recovery,
        answer.timeline,
        answer.system_identifier,
        answer.started_at,
    )
