"""What is known of all hosts: a frozen value, and the one way in which it changes.

`Topology.apply` is a pure function from a snapshot and an `Observation` to the next snapshot. All
knowledge about a host is in its `HostState`. Which of the hosts may be the master follows from the
states of all: `judgement` has the rules.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from pyscopg2.core.timing import stopwatch
from pyscopg2.core.topology.freshness import Freshness, freshness, told
from pyscopg2.core.topology.host_state import HostState, Observation, Role, facts, observe
from pyscopg2.core.topology.judgement import Verdict, judge_anew, plain_role
from pyscopg2.core.topology.lsn_clock import LsnClock
from pyscopg2.core.topology.role_query import Answer

_REIGNING = (Role.MASTER, Role.UNAVAILABLE)
"""Of a master that was named last: replaced by nobody yet."""

Change = tuple[HostState, HostState]
"""What a host's state was, and is."""


@dataclass(frozen=True)
class Topology:
    """The hosts in the order of the DSN, each under its address."""

    hosts: tuple[HostState, ...]
    fencing: bool = True
    """Whether one master of one system is named, by the rules of `judge`; without it every writable
    host is a master."""
    settled: bool = False
    """Whether a master may be named: every host has answered or failed once, or has had the time
    to. Until then a master that has been replaced might be the first to answer."""
    master: str | None = None
    """The address of the host that was named master last; it may be lost since."""
    system: int | None = None
    """The identifier of the system that counts; None while no host has told its own."""
    positions: Mapping[str, int] = field(kw_only=True, repr=False, compare=False)
    """Of the addresses among the hosts: the same in each snapshot."""

    @classmethod
    def of(cls, addresses: tuple[str, ...], *, fencing: bool = True) -> Topology:
        """The snapshot before the first check."""
        positions = {address: position for position, address in enumerate(addresses)}
        hosts = tuple(map(HostState, addresses))
        return cls(hosts, fencing, settled=not fencing, positions=positions)

    def apply(self, observation: Observation) -> Topology:
        """The next snapshot. An observation of a host that is not here changes nothing."""
        position = self.positions.get(observation.address)
        if position is None:
            return self
        before = self.hosts[position]
        seen = observe(before, observation)
        hosts = (*self.hosts[:position], seen, *self.hosts[position + 1 :])
        if not self.settled and all(host.serial for host in hosts):
            return _judge_anew(replace(self, hosts=hosts, settled=True))
        if facts(seen) != facts(before):
            return _judge_anew(replace(self, hosts=hosts))
        # What is judged follows from the facts of all: a check that changes none costs one host.
        return replace(self, hosts=hosts)

    def mark_overdue(self, address: str) -> Topology:
        """The next snapshot, in which the host's present check takes far longer than usual.

        `KeyError`: there is none of that address.
        """
        position = self.positions[address]
        if self.hosts[position].overdue:
            return self
        late = replace(self.hosts[position], overdue=True)
        return replace(self, hosts=(*self.hosts[:position], late, *self.hosts[position + 1 :]))

    def settle(self) -> Topology:
        """The next snapshot, from which on a master may be named."""
        return self if self.settled else _judge_anew(replace(self, settled=True))

    def forget(self, address: str) -> Topology:
        """The next snapshot, without what is known of that host; its next check tells anew.

        `KeyError`: there is none of that address.
        """
        position = self.positions[address]
        blank = replace(self.hosts[position], answer=None, answered_at=None, clock=None)
        hosts = (*self.hosts[:position], blank, *self.hosts[position + 1 :])
        master = None if self.master == address else self.master
        return _judge_anew(replace(self, hosts=hosts, master=master))

    def changes(self, before: Topology) -> list[Change]:
        """The hosts that are not what they were, in the order of the DSN."""
        pairs = zip(before.hosts, self.hosts, strict=True)
        return list(itertools.compress(pairs, map(operator.is_not, before.hosts, self.hosts)))

    @property
    def reign(self) -> tuple[str | None, int | None]:
        """The address of the host that was named master last, and its timeline."""
        if self.master is None:
            return None, None
        answer = self[self.master].answer
        return self.master, None if answer is None else answer.timeline

    @cached_property
    def masters(self) -> tuple[HostState, ...]:
        """Those that may serve now."""
        if not self.settled:
            return ()
        return tuple(host for host in self.hosts if host.serving and host.role is Role.MASTER)

    @cached_property
    def replicas(self) -> tuple[HostState, ...]:
        """Those that may serve now."""
        known = self.settled or self._is_system_known
        return tuple(
            host
            for host in self.hosts
            if host.serving and host.role is Role.REPLICA and (known or host.system is None)
        )

    @cached_property
    def clock(self) -> LsnClock | None:
        """What the master has told of its log. None: there is none, it does not tell, or there are
        several masters, of which one may be lost. With fencing, one that is lost is still the
        master, until another one is named."""
        if not self.settled:
            return None
        if self.fencing:
            named = None if self.master is None else self[self.master]
            return named.clock if named is not None and named.role in _REIGNING else None
        return _clock_without_fencing(self.hosts)

    def freshness(self, address: str) -> Freshness:
        """How far behind the master a replica is, as far as it is proven. `KeyError`: there is no
        host of that address."""
        known = self._freshness.get(address)
        if known is None:
            known = self._freshness[address] = freshness(self[address], self.clock)
        return known

    def told(self, answer: Answer) -> Freshness:
        """How far behind the master a server is that says this just now, whichever it is."""
        return told(answer, self.clock)

    @cached_property
    def _freshness(self) -> dict[str, Freshness]:
        """By address, of those that were asked for: a snapshot's never changes."""
        return {}

    @property
    def _is_system_known(self) -> bool:
        """Whether hosts that have not answered yet cannot make another system count."""
        return 2 * sum(host.system == self.system for host in self.hosts) > len(self.hosts)

    def as_dict(self) -> dict[str, object]:
        """For JSON: see `HostState.as_dict`. ``lag`` is the proven bound at this moment, in
        seconds; None where there is none, with the reason beside it."""
        now = stopwatch.clock()
        return {
            "master": self.masters[0].address if self.masters else None,
            "system_identifier": None if self.system is None else str(self.system),
            "fencing": self.fencing,
            "settled": self.settled,
            "hosts": [host.as_dict() | self._lag_of(host, now) for host in self.hosts],
        }

    def _lag_of(self, host: HostState, now: float) -> dict[str, object]:
        known = self.freshness(host.address)
        return {"lag": known.lag(now), "lag_reason": known.reason or None}

    def __getitem__(self, address: str) -> HostState:
        """The state of one host; `KeyError` where it is not of this topology."""
        return self.hosts[self.positions[address]]

    def __iter__(self) -> Iterator[HostState]:
        return iter(self.hosts)

    def __len__(self) -> int:
        return len(self.hosts)

    def __str__(self) -> str:
        return "; ".join(map(self.describe, self.hosts))

    def describe(self, host: HostState) -> str:
        """One host in words; a replica with how far behind it is, at this moment."""
        if host.role is not Role.REPLICA or self.clock is None:
            return str(host)
        return f"{host}, {self.freshness(host.address).describe(stopwatch.clock())}"


def _clock_without_fencing(hosts: tuple[HostState, ...]) -> LsnClock | None:
    """That of the one master, if it is one."""
    masters = [host for host in hosts if host.role is Role.MASTER]
    clock = masters[0].clock if len(masters) == 1 else None
    if clock is None:
        return None
    # One that was a master of the same timeline may have written what this one has not; and whom a
    # standby follows of the two, nobody can tell.
    lost = [h.clock for h in hosts if h.role is Role.UNAVAILABLE and h.clock is not None]
    return None if any(each.is_of(clock.system, clock.timeline) for each in lost) else clock


def _judge_anew(topology: Topology) -> Topology:
    if not topology.fencing:
        return replace(topology, hosts=tuple(map(plain_role, topology.hosts)))
    known = Verdict(topology.hosts, topology.system, topology.master)
    hosts, system, master = judge_anew(known, is_master_named=topology.settled)
    return replace(topology, hosts=hosts, system=system, master=master)
