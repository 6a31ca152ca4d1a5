"""Which role each host has. Reachable or not, it counts as what it was last seen as."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pyscopg2.core.topology.host_state import HostState, Role


class Verdict(NamedTuple):
    """The hosts with their roles, and what the next judgement has to know of this one."""

    hosts: tuple[HostState, ...]
    system: int | None
    """The identifier of the system that counts; None while no host has told its own."""
    master: str | None
    """The address of the host that was named master last; it may be lost since."""


def judge_anew(before: Verdict, *, is_master_named: bool) -> Verdict:
    """By what the hosts' states are now. ``is_master_named``: whether a master may be named yet."""
    system = _system_that_counts(before.hosts, before.system)
    master = before.master
    hosts = judge(before.hosts, system, master)
    if is_master_named:
        named = (h.address for h in hosts if h.role is Role.MASTER and h.system == system)
        master = next(named, master)
    return Verdict(hosts, system, master)


def judge(
    hosts: Sequence[HostState], system: int | None, master: str | None
) -> tuple[HostState, ...]:
    """Give each host its role, where one master at most is named.

    ``system`` is the one that counts, ``master`` the address that was named last.

    1. The newest timeline that any host of the system has told of counts: primaries on a lower one
       are superseded, whether they answer or not. A host in recovery never is.
    2. What does not answer is unavailable.
    3. A host of another system is foreign, and serves nobody.
    4. One system has one history: of several primaries on one timeline one is the master, and the
       others are its rivals. It is the one that was master; else the one that has written most.
       Where two addresses lead to one server, the other steps in while the first does not answer.
    5. What is left has the role that its own last check tells. A host that told no system cannot be
       compared with others.
    """
    newest = _newest_timeline(hosts, system)
    contenders = [
        host for host in hosts if newest is not None and _claim(host, system) == newest[0]
    ]
    reigning = _find_reigning(contenders, master)
    return tuple(_judged(host, system, newest, reigning) for host in hosts)


def _system_that_counts(hosts: Sequence[HostState], before: int | None) -> int | None:
    """The one that most hosts were last seen in. On a tie the one that has a master, then the one
    that has counted so far, then the one that comes first in the DSN."""
    votes = Counter(host.system for host in hosts if host.system is not None)
    if not votes:
        return before
    led = {host.system for host in hosts if host.answer is not None and host.answer.writable}
    return max(votes, key=lambda system: (votes[system], system in led, system == before))


def _claim(host: HostState, system: int | None) -> int | None:
    """The timeline whose primary it was when last seen; None where it was none, or is of another
    system. One that is set read-only meanwhile is on its timeline still."""
    answer = host.answer
    if answer is None or answer.in_recovery or answer.system_identifier is None:
        return None
    return answer.timeline or 0 if answer.system_identifier == system else None


def _newest_timeline(hosts: Sequence[HostState], system: int | None) -> tuple[int, str] | None:
    """The highest that a host of the system has, and the address of one: of a primary, if one has
    it."""
    known = [
        (host.answer.timeline or 0, _claim(host, system) is not None, -position, host.address)
        for position, host in enumerate(hosts)
        if host.answer is not None and system is not None and host.system == system
    ]
    if not known:
        return None
    timeline, _, _, address = max(known)
    return timeline, address


def _find_reigning(contenders: Sequence[HostState], master: str | None) -> HostState | None:
    """Of the primaries on the newest timeline, the one that is the master."""
    if not contenders:
        return None
    reigning = next((host for host in contenders if host.address == master), None)
    if reigning is None:
        reigning = max(contenders, key=_standing)
    if not reigning.answering:
        same = [host for host in contenders if _is_same_server(host, reigning) and host.answering]
        return same[0] if same else reigning
    return reigning


def _standing(host: HostState) -> tuple[bool, bool, int]:
    if host.answer is None:
        return False, False, 0
    return host.answering, host.answer.writable, host.answer.lsn or 0


def _is_same_server(host: HostState, other: HostState) -> bool:
    """Of two of the same system and timeline."""
    if host.answer is None or other.answer is None or host.answer.started_at is None:
        return False
    return host.answer.started_at == other.answer.started_at


def _judged(
    host: HostState,
    system: int | None,
    newest: tuple[int, str] | None,
    reigning: HostState | None,
) -> HostState:
    claim = _claim(host, system)
    if claim is not None and newest is not None and claim < newest[0]:
        return _with_role(host, Role.SUPERSEDED, newest[1])
    if host.has_failed:
        return _with_role(host, Role.UNAVAILABLE)
    if host.system is not None and host.system != system:
        return _with_role(host, Role.FOREIGN, counting_system=system)
    if claim is not None and reigning is not None and host.address != reigning.address:
        return _with_role(host, Role.RIVAL, reigning.address)
    return plain_role(host)


def plain_role(host: HostState) -> HostState:
    """The role that follows from a host's own last check."""
    if host.has_failed:
        return _with_role(host, Role.UNAVAILABLE)
    if host.answer is None:
        return _with_role(host, Role.UNKNOWN)
    return _with_role(host, Role.MASTER if host.answer.writable else Role.REPLICA)


def _with_role(
    host: HostState, role: Role, yields_to: str | None = None, counting_system: int | None = None
) -> HostState:
    if (role, yields_to, counting_system) == (host.role, host.yields_to, host.counting_system):
        return host
    return replace(host, role=role, yields_to=yields_to, counting_system=counting_system)
