"""What the manager makes of all hosts together: a pure function from a `Topology` to findings.

Who is master, superseded or a rival is not decided here: what the manager says counts.
"""

from collections.abc import Collection, Iterator

from pyscopg2.cli.check.finding import Finding, Kind
from pyscopg2.cli.check.pooler import kind_of_failure
from pyscopg2.core.topology import HostState, Role, Topology

BEHIND_LIMIT = 64 * 2**20
"""Bytes of the log that a replica may be behind: four segments."""


def judge_topology(topology: Topology, explained: Collection[str | None]) -> Iterator[Finding]:
    """``explained``: addresses of the hosts of which it is known why they do not answer."""
    for host in topology:
        yield from _judge_host(topology, host)
        if host.has_failed and host.address not in explained:
            yield Finding(kind_of_failure(host.reason), host.reason, host.address)
    yield from _judge_all(topology)


def behind(topology: Topology, host: HostState) -> int | None:
    """How much of the master's log a replica has not replayed, in bytes. None: not known."""
    master = master_of(topology)
    if master is None or master.answer is None or host.answer is None:
        return None
    ours, theirs = host.answer.lsn, master.answer.lsn
    if ours is None or theirs is None or host.role is not Role.REPLICA:
        return None
    return max(theirs - ours, 0)


def master_of(topology: Topology) -> HostState | None:
    """The host that takes writes, its pool open or not."""
    return next((host for host in topology if host.role is Role.MASTER), None)


def _judge_host(topology: Topology, host: HostState) -> Iterator[Finding]:
    address, answer = host.address, host.answer
    if host.role is Role.SUPERSEDED and answer is not None:
        yield Finding(
            Kind.SUPERSEDED,
            f"a primary on timeline {answer.timeline}, while {host.yields_to} is on a newer one",
            address,
        )
    elif host.role is Role.RIVAL:
        yield _rival(topology, host)
    elif host.role is Role.FOREIGN:
        yield Finding(
            Kind.OTHER_CLUSTER,
            f"a server of system {host.system}, while most hosts are of {host.counting_system}",
            address,
        )
    if answer is not None and host.answering and not answer.rich:
        yield Finding(Kind.NO_TIMELINE, "the server does not tell system and timeline", address)
    late = behind(topology, host)
    if late is not None and late > BEHIND_LIMIT:
        yield Finding(Kind.BEHIND, f"{late / 2**20:.0f} MiB of the log are not replayed", address)


def _rival(topology: Topology, host: HostState) -> Finding:
    other = None if host.yields_to is None else topology[host.yields_to]
    if other is not None and _start(host) is not None and _start(host) == _start(other):
        text = f"the same server as {host.yields_to}"
        return Finding(Kind.ONE_SERVER_TWICE, text, host.address)
    text = f"a primary on the same timeline as {host.yields_to}"
    return Finding(Kind.TWO_MASTERS, text, host.address)


def _start(host: HostState) -> int | None:
    """When its server was started."""
    return None if host.answer is None else host.answer.started_at


def _judge_all(topology: Topology) -> Iterator[Finding]:
    answering = [host for host in topology if host.answering]
    if not answering:
        return  # each of them has a fault that says more
    if master_of(topology) is None:
        standbys = [host for host in answering if host.answer and host.answer.in_recovery]
        if len(standbys) == len(topology):
            text = "the host is a standby" if len(topology) == 1 else "all hosts are standbys"
            yield Finding(Kind.ONLY_STANDBYS, text)
        else:
            yield Finding(
                Kind.NO_MASTER,
                f"of {len(topology)} hosts {len(answering)} answer, and none of these takes writes",
            )
    elif len(topology) > 1 and not any(host.role is Role.REPLICA for host in topology):
        yield Finding(Kind.NO_REPLICA, "no replica is in service")
