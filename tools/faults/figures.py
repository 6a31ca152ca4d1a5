"""From what contestants did to what they are judged by: pure functions."""

import enum
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from .operation import Operation

SLOW = 0.15
"""Seconds from which on an operation counts as slow; usual are the 0.03 that it holds its
connection, and as long in the line for one."""
_IN_A_ROW = 20


class Measure(enum.Enum):
    """What the outage of a fault is, in seconds."""

    FIRST_WRITE = "first write, after writes are accepted"
    READS_SUFFER = "last error of a read, or slow read, after the fault"
    TWENTY_IN_A_ROW = "first of twenty successes in a row, after the fault"
    NONE = ""


FigureName = Literal[
    "outage", "longest", "longest_read", "wrong", "hung", "terminate", "exit", "checks",
    "tasks", "backends",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure, and the most that it may be."""

    figure: FigureName
    at_most: float

    @classmethod
    def of(cls, figure: FigureName, at_most: float) -> "Limit":
        return cls(figure, at_most)


ALWAYS = (Limit("terminate", 2.0), Limit("tasks", 0), Limit("backends", 0))
"""After every fault."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One contestant in one fault. Seconds and counts; infinite: it never came."""

    outage: float | None = None
    errors: Counter[str] = field(default_factory=Counter[str])
    """From the fault on, by class."""
    operations: int = 0
    """That succeeded from the fault on."""
    longest: float | None = None
    longest_read: float | None = None
    wrong: int = 0
    """Writes sent after the new master accepted writes, and done on the old one."""
    wrong_until: float | None = None
    """When the last of them was sent, counted from the same moment."""
    hung: int = 0
    terminate: float | None = None
    tasks: int = 0
    backends: int = 0
    exit: float | None = None
    checks: float | None = None
    problem: str | None = None
    """Why there are no figures, or what else happened."""

    def value(self, figure: FigureName) -> float | None:
        number: float | None = getattr(self, figure)
        return number

    def holds(self, limit: Limit) -> bool:
        value = self.value(limit.figure)
        if self.problem is not None and value is None:
            return False
        return value is None or value <= limit.at_most


NEVER = float("inf")


def first_write(operations: Sequence[Operation], host: str, fault: float, writable: float) -> float:
    """Seconds from `writable` to the first write that `host` acknowledged; never below 0."""
    answered = [
        o.answered
        for o in operations
        if o.kind == "write" and o.answered is not None and o.host == host
        # Before a restart the same host took writes, too: until the fault.
        if o.got is not None and o.answered > fault and o.answered >= writable - 0.1
    ]
    return max(0.0, min(answered) - writable) if answered else NEVER


def reads_suffer(operations: Sequence[Operation], fault: float) -> float:
    """Seconds from the fault to the end of the last read that failed or was slow."""
    bad = [
        NEVER if o.ended is None else o.ended
        for o in operations
        if o.kind == "read" and (o.ended is None or o.ended > fault)
        if o.ended is None or o.error is not None or o.ended - o.began > SLOW
    ]
    return max(0.0, max(bad, default=fault) - fault)


def twenty_in_a_row(operations: Sequence[Operation], fault: float) -> float:
    """Seconds from the fault to the first of twenty successes without an error in between, for
    writes and reads each, whichever comes last; of operations that began after the fault."""
    worst = 0.0
    for kind in ("write", "read"):
        since = [o for o in operations if o.kind == kind and o.ended is not None]
        since = [o for o in since if o.began > fault or o.error is not None]
        row: list[float] = []
        for operation in sorted(since, key=_ended):
            if _ended(operation) < fault:
                continue
            if operation.succeeded:
                row.append(_ended(operation) - fault)
            else:
                row.clear()
            if len(row) == _IN_A_ROW:
                break
        worst = max(worst, row[0] if len(row) == _IN_A_ROW else NEVER)
    return worst


def longest(operations: Sequence[Operation], fault: float, over: float) -> float | None:
    """Of those that were under way at the fault or began later; what hangs counts until `over`."""
    lengths = [
        (over if o.ended is None else o.ended) - o.began
        for o in operations
        if o.ended is None or o.ended > fault
    ]
    return max(lengths, default=None)


def wrong_writes(
    operations: Sequence[Operation], old: str, on_old_only: Collection[int], writable: float
) -> list[Operation]:
    """Those sent after the new master accepted writes, and acknowledged by the old one or found
    nowhere else. What was sent before is the price of asynchronous replication."""
    return [
        o
        for o in operations
        if o.kind == "write" and o.got is not None and o.got > writable
        if o.row in on_old_only or (o.answered is not None and o.host == old)
    ]


def errors_of(operations: Sequence[Operation], fault: float) -> Counter[str]:
    return Counter(
        o.error for o in operations if o.error is not None and (o.ended or fault) >= fault
    )


def merged(rounds: Sequence[Figures]) -> Figures:
    """Of several rounds: the median outage, and the worst of everything else."""
    outages = [f.outage for f in rounds if f.outage is not None]
    errors: Counter[str] = Counter()
    for each in rounds:
        errors.update(each.errors)
    return Figures(
        outage=median(outages) if outages else None,
        errors=errors,
        operations=sum(f.operations for f in rounds),
        longest=_worst([f.longest for f in rounds]),
        longest_read=_worst([f.longest_read for f in rounds]),
        wrong=max(f.wrong for f in rounds),
        wrong_until=_worst([f.wrong_until for f in rounds]),
        hung=max(f.hung for f in rounds),
        terminate=_worst([f.terminate for f in rounds]),
        tasks=max(f.tasks for f in rounds),
        backends=max(f.backends for f in rounds),
        exit=_worst([f.exit for f in rounds]),
        checks=_worst([f.checks for f in rounds]),
        problem=next((f.problem for f in rounds if f.problem), None),
    )


def _worst(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _ended(operation: Operation) -> float:
    assert operation.ended is not None
    return operation.ended
