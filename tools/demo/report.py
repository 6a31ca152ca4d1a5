"""The summary: pure functions from what was counted to figures, sentences and an exit code."""

from collections import Counter
from dataclasses import dataclass, field

from .ledger import KINDS, Kind, Ledger, Stage


@dataclass(frozen=True, slots=True)
class Outage:
    """From the last write that the old master acknowledged to the first that the new one did.

    The three parts follow each other without a gap, so they add up to the whole and none is
    negative. A write may be acknowledged a moment before the watcher's next question to the new
    master is answered; then that write is the proof that the server takes writes.
    """

    undecided: float
    """Until the promotion was asked for. In production: until somebody, or Patroni, decides."""
    promotion: float
    """Until the promoted server took writes, as a connection of the demo's own found out."""
    routing: float
    """Until a write by way of pyscopg2 was acknowledged."""

    @property
    def total(self) -> float:
        return self.undecided + self.promotion + self.routing

    @classmethod
    def between(
        cls, last_write: float, asked: float, writable: float, first_write: float
    ) -> "Outage":
        """From moments on one clock, in seconds."""
        writable = min(writable, first_write)
        return cls(asked - last_write, writable - asked, first_write - writable)


@dataclass(frozen=True, slots=True)
class Rows:
    """The writes that were sent, and what the new master has of them."""

    acknowledged: int
    lost: int
    """Acknowledged, and not there."""
    in_doubt: int
    committed: int
    """Of those in doubt, how many are there."""

    @classmethod
    def compare(cls, ledger: Ledger, found: set[int]) -> "Rows":
        return cls(
            len(ledger.acknowledged),
            len(ledger.acknowledged - found),
            len(ledger.in_doubt),
            len(ledger.in_doubt & found),
        )


@dataclass(slots=True)
class Findings:
    """What the story found out; the summary and the exit code follow from it."""

    hosts: tuple[str, ...]
    old_master: str
    new_master: str = ""
    asked: float | None = None
    writable: float | None = None
    roles: dict[str, str] = field(default_factory=dict[str, str])
    """Each host's role at the end of the load, by the manager."""
    rows: Rows | None = None
    not_free: dict[str, int] = field(default_factory=dict[str, int])
    """Connections that had not come back when the load had ended, by host."""
    backends: dict[str, int] = field(default_factory=dict[str, int])
    """The manager's server processes after `close`, by host."""
    tasks: list[str] = field(default_factory=list[str])
    """The manager's tasks after `close`."""
    complaints: list[str] = field(default_factory=list[str])
    """What the event loop had to complain about."""

    def outage(self, ledger: Ledger) -> Outage | None:
        """None if the writes did not come back."""
        last = ledger.last_write.get(self.old_master)
        first = ledger.first_write.get(self.new_master)
        if last is None or first is None or self.asked is None or self.writable is None:
            return None
        return Outage.between(last, self.asked, self.writable, first)


def failed_checks(found: Findings, ledger: Ledger) -> list[str]:
    """A sentence for each thing that did not go as it must; the demo exits 0 if there is none."""
    new, old = found.new_master, found.old_master
    failed: list[str] = []
    if found.outage(ledger) is None:
        failed.append("Writes did not come back after the promotion.")
    expected = {host: "master" if host == new else "replica" for host in found.hosts}
    for host, role in expected.items():
        if found.roles.get(host) != role:
            seen = found.roles.get(host, "unknown")
            failed.append(f"At the end {host} should be {role}, but the manager sees {seen}.")
    if not ledger.count("write", new, Stage.REJOINED):
        failed.append(f"No write reached {new or 'a master'} in the last stage.")
    if not ledger.count("read", old, Stage.REJOINED):
        failed.append(f"No read reached {old} after it came back.")
    failed += [
        f"{stray} writes went to {host}, which is no master any more."
        for host in found.hosts
        if host != new and (stray := ledger.count("write", host, Stage.REJOINED))
    ]
    if late := ledger.errors(stage=Stage.REJOINED):
        failed.append(f"Errors after all hosts were back: {_named(late)}.")
    for host, number in found.not_free.items():
        failed.append(f"{number} connections to {host} did not come back when the load ended.")
    for host, number in found.backends.items():
        failed.append(f"{number} server processes of the manager are left on {host}.")
    if found.tasks:
        failed.append(f"Tasks left in the event loop: {', '.join(found.tasks)}.")
    failed += [f"The event loop complained: {complaint}." for complaint in found.complaints]
    return failed


def summary(found: Findings, ledger: Ledger) -> list[str]:
    """The last page, line by line, in at most 80 columns as long as counts are not astronomical."""
    new, old = found.new_master, found.old_master
    lines = ["summary", ""]
    outage = found.outage(ledger)
    if outage is None:
        lines.append("write outage     did not end")
    else:
        lines += [
            f"write outage     {outage.total:7.3f} s  last write on {old} to first write on {new}",
            f"  undecided      {outage.undecided:7.3f} s  until the demo asked for a promotion",
            f"  PostgreSQL     {outage.promotion:7.3f} s  until {new} said that it takes writes",
            f"  routing        {outage.routing:7.3f} s  until a write through pyscopg2 came back",
        ]
    pause = ledger.longest_pause.get("read", 0.0)
    lines += [f"read pause       {pause:7.3f} s  longest time between two reads", ""]
    for kind in KINDS:
        lines += _table(kind, found.hosts, ledger)
    lines.append("")
    for kind in KINDS:
        errors = ledger.errors(kind)
        lines.append(f"errors of {kind + 's':<7}{errors.total():6}    {_named(errors)}".rstrip())
    rows = found.rows
    if rows is not None:
        lost = f"{rows.lost} lost (replication is asynchronous: a kill may"
        lines += [
            f"rows acknowledged{rows.acknowledged:6}    {lost}",
            " " * 27 + "cost some, only synchronous replication prevents it)",
            f"rows in doubt    {rows.in_doubt:6}    cut off midway, {rows.committed} committed",
        ]
    leaks = sum((found.not_free | found.backends).values()) + len(found.tasks)
    lines.append(
        f"left behind      {leaks or 'nothing':>7}   connections out, server processes, tasks"
    )
    failed = failed_checks(found, ledger)
    lines += ["", *(f"FAILED: {sentence}" for sentence in failed)]
    if not failed:
        lines.append("OK: routing recovered, nothing leaked.")
    return lines


def _table(kind: Kind, hosts: tuple[str, ...], ledger: Ledger) -> list[str]:
    """Where the operations went, by host and stage."""
    head = f"{kind + 's':<16}" + "".join(f"{stage.value:>10}" for stage in Stage)
    rows = [
        f"  {host:<14}" + "".join(f"{ledger.count(kind, host, stage):10}" for stage in Stage)
        for host in hosts
    ]
    return [head, *rows]


def _named(errors: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in errors.most_common())
