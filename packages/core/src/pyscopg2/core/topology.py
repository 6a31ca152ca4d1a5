"""What is known of the hosts: frozen values, and the one rule by which they change.

`Topology.apply` is a pure function from a snapshot and an `Observation` to the next snapshot. All
knowledge about a host is in its `HostState`; whether a master is superseded follows from the
states of all.
"""

from __future__ import annotations

import enum
import itertools
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from pyscopg2.core.probe import Answer


class Role(enum.Enum):
    """The one role that a host has at a time."""

    UNKNOWN = "unknown"
    """Not checked yet."""
    MASTER = "master"
    REPLICA = "replica"
    """In recovery, or a primary that is set read-only: it serves reads."""
    SUPERSEDED = "superseded"
    """Last seen as a primary, and another host of its system was last seen so on a newer
    timeline."""
    UNAVAILABLE = "unavailable"
    """Its last check failed."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one check of one host found: an answer, or the error that stood in its way."""

    address: str
    serial: int
    """The number that the check took when it began; later checks have higher ones."""
    at: float
    """When the check ended, on the event loop's clock, in seconds."""
    answer: Answer | None = None
    error: Exception | None = None
    reason: str = ""
    """The error in one line for people, without secrets."""
    hopeless: bool = False
    """Waiting will not heal this error: a wrong password, an unknown database, a bad option."""
    response_time: float | None = None
    """The median of the host's last response times, in seconds."""
    round_trip: float | None = None
    """What this check's own query took, in seconds; None where it was not answered."""
    pool: object = field(default=None, repr=False)
    """The driver pool of the host's present spell; None while it has none."""


@dataclass(frozen=True, slots=True)
class HostState:
    """All that is known of one host."""

    address: str
    role: Role = Role.UNKNOWN
    answer: Answer | None = None
    """The last answer, which may be older than the last check."""
    answered_at: float | None = None
    """When it answered last, on the event loop's clock, in seconds."""
    error: Exception | None = None
    """Of the last check; None where it succeeded."""
    reason: str = ""
    """The same in one line for people, without secrets."""
    hopeless: bool = False
    superseded_by: str | None = None
    response_time: float | None = None
    round_trip: float | None = None
    """Of the last check that was answered, in seconds."""
    serial: int = 0
    pool: object = field(default=None, repr=False)

    @property
    def serving(self) -> bool:
        """Whether its connections may be handed out at all."""
        return self.pool is not None and self.role in (Role.MASTER, Role.REPLICA)

    @property
    def answering(self) -> bool:
        """Whether its last check succeeded."""
        return self.answer is not None and self.error is None

    def __str__(self) -> str:
        words = [f"{self.address} {self.role.value}"]
        if self.superseded_by is not None:
            words.append(f" by {self.superseded_by}")
        if self.answering and self.answer is not None and not self.answer.rich:
            words.append(" (tells no timeline: no fencing)")
        if self.reason:
            words.append(f" ({self.reason})")
        return "".join(words)


Change = tuple[HostState, HostState]
"""What a host's state was, and is."""


@dataclass(frozen=True)
class Topology:
    """The hosts in the order of the DSN, each under its address."""

    hosts: tuple[HostState, ...]
    fencing: bool = True
    """Whether the newest timeline wins; without it every writable host is a master."""
    positions: Mapping[str, int] = field(kw_only=True, repr=False, compare=False)
    """Of the addresses among the hosts: the same in each snapshot."""

    @classmethod
    def of(cls, addresses: tuple[str, ...], *, fencing: bool = True) -> Topology:
        """The snapshot before the first check."""
        positions = {address: position for position, address in enumerate(addresses)}
        return cls(tuple(map(HostState, addresses)), fencing, positions=positions)

    def apply(self, observation: Observation) -> Topology:
        """The next snapshot. An observation of a host that is not here changes nothing."""
        position = self.positions.get(observation.address)
        if position is None:
            return self
        before = self.hosts[position]
        host = _judge(_observe(before, observation), before.superseded_by)
        hosts = (*self.hosts[:position], host, *self.hosts[position + 1 :])
        # Who supersedes whom follows from all claims: a check that changes none costs one host.
        if self.fencing and _claim(host) != _claim(before):
            newest = _newest_masters(hosts)
            hosts = tuple(_judge(each, _superseder(each, newest)) for each in hosts)
        return Topology(hosts, self.fencing, positions=self.positions)

    def changes(self, before: Topology) -> list[Change]:
        """The hosts that are not what they were, in the order of the DSN."""
        pairs = zip(before.hosts, self.hosts, strict=True)
        return list(itertools.compress(pairs, map(operator.is_not, before.hosts, self.hosts)))

    @cached_property
    def masters(self) -> tuple[HostState, ...]:
        """Those that may serve now."""
        return tuple(host for host in self.hosts if host.serving and host.role is Role.MASTER)

    @cached_property
    def replicas(self) -> tuple[HostState, ...]:
        """Those that may serve now."""
        return tuple(host for host in self.hosts if host.serving and host.role is Role.REPLICA)

    def __getitem__(self, address: str) -> HostState:
        """The state of one host; `KeyError` where it is not of this topology."""
        return self.hosts[self.positions[address]]

    def __iter__(self) -> Iterator[HostState]:
        return iter(self.hosts)

    def __len__(self) -> int:
        return len(self.hosts)

    def __str__(self) -> str:
        return "; ".join(map(str, self.hosts))


def _observe(host: HostState, seen: Observation) -> HostState:
    """A host's state after a check; what a failed check did not tell stays as it was."""
    if seen.answer is None:
        return replace(
            host,
            error=seen.error,
            reason=seen.reason,
            hopeless=seen.hopeless,
            serial=seen.serial,
            pool=seen.pool,
        )
    return replace(
        host,
        answer=seen.answer,
        answered_at=seen.at,
        error=None,
        reason="",
        hopeless=False,
        response_time=seen.response_time,
        round_trip=seen.round_trip,
        serial=seen.serial,
        pool=seen.pool,
    )


def _claim(host: HostState) -> tuple[int, int] | None:
    """The system whose primary it was when last seen, and on which timeline; None where it was
    none, or did not tell. One that is set read-only meanwhile is on its timeline still."""
    answer = host.answer
    if answer is None or answer.in_recovery or answer.system_identifier is None:
        return None
    return answer.system_identifier, answer.timeline or 0


_Newest = dict[int, tuple[int, str]]
"""For each system, the highest timeline that is claimed, and the address that claims it."""


def _newest_masters(hosts: tuple[HostState, ...]) -> _Newest:
    """Reachable or not."""
    newest: _Newest = {}
    for host in hosts:
        claim = _claim(host)
        if claim is not None:
            system, timeline = claim
            if system not in newest or timeline > newest[system][0]:
                newest[system] = timeline, host.address
    return newest


def _superseder(host: HostState, newest: _Newest) -> str | None:
    """The address of the newest master of the host's system, where that is newer."""
    claim = _claim(host)
    if claim is None:
        return None
    system, timeline = claim
    highest, address = newest[system]
    return address if highest > timeline else None


def _judge(host: HostState, superseded_by: str | None) -> HostState:
    """Give a host the role that follows from its own state, and from who supersedes it."""
    if superseded_by is not None:
        role = Role.SUPERSEDED
    elif host.error is not None:
        role = Role.UNAVAILABLE
    elif host.answer is None:
        role = Role.UNKNOWN
    else:
        role = Role.MASTER if host.answer.writable else Role.REPLICA
    if role is host.role and superseded_by == host.superseded_by:
        return host
    return replace(host, role=role, superseded_by=superseded_by)
