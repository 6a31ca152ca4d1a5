"""The fault bench's figures: what operations come to, and when a limit is missed."""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.faults import report
from tools.faults.bench import scenarios
from tools.faults.contestants import CONTESTANTS, QUICK
from tools.faults.faults import FAULTS
from tools.faults.figures import (
    NEVER,
    Figures,
    errors_of,
    first_write,
    longest,
    merged,
    reads_suffer,
    twenty_in_a_row,
    wrong_writes,
)
from tools.faults.operation import Kind, Operation
from tools.faults.report import as_json, markdown, misses, publish, show

FAULT = 10.0
OURS = "pyscopg2-asyncpg"


def operation(
    kind: Kind, began: float, ended: float | None, host: str | None = "node1", **changes: Any
) -> Operation:
    """One that got its connection at once, and its answer when it ended."""
    return Operation(kind, began, began, ended, ended, host, None, None)._replace(**changes)


def failed(kind: Kind, began: float, ended: float) -> Operation:
    return operation(kind, began, ended, host=None, answered=None, error="OSError")


def test_the_first_write_counts_from_the_moment_that_writes_were_accepted() -> None:
    operations = [
        operation("write", 9.9, 9.95, "node2"),  # before the fault: a restart in place
        operation("write", 11.0, 11.1, "node1"),
        operation("read", 11.1, 11.2, "node2"),
        operation("write", 11.4, 11.5, "node2"),
        operation("write", 11.2, 11.7, "node2"),
    ]
    assert first_write(operations, "node2", FAULT, 11.25) == pytest.approx(0.25)
    assert first_write(operations, "node3", FAULT, 11.25) == NEVER
    # The prober is a little late.
    assert first_write(operations, "node2", FAULT, 11.55) == 0


def test_reads_suffer_until_the_last_that_failed_or_was_slow() -> None:
    well = [operation("read", 9.9, 10.0), operation("read", 12.0, 12.05)]
    assert reads_suffer(well, FAULT) == 0
    assert reads_suffer([*well, failed("read", 10.0, 10.1)], FAULT) == pytest.approx(0.1)
    assert reads_suffer([*well, operation("read", 10.1, 10.6)], FAULT) == pytest.approx(0.6)
    assert reads_suffer([*well, failed("read", 9.0, 9.5)], FAULT) == 0
    assert reads_suffer([*well, failed("write", 10.0, 10.5)], FAULT) == 0
    assert reads_suffer([*well, operation("read", 10.0, None)], FAULT) == NEVER


def test_an_error_begins_the_row_of_twenty_anew() -> None:
    def row(kind: Kind, start: float, count: int) -> list[Operation]:
        return [operation(kind, start + i / 10, start + i / 10 + 0.05) for i in range(count)]

    writes = row("write", 10.1, 20)
    assert twenty_in_a_row([*writes, *row("read", 10.5, 20)], FAULT) == pytest.approx(0.55)
    assert twenty_in_a_row([*writes, *row("read", 10.5, 19)], FAULT) == NEVER
    broken = [*row("read", 10.1, 30), failed("read", 10.2, 11.0)]
    assert twenty_in_a_row([*writes, *broken], FAULT) == pytest.approx(1.05)
    # What began before the fault proves nothing.
    assert twenty_in_a_row([*writes, *row("read", 9.0, 29)], FAULT) == NEVER


def test_the_longest_was_under_way_at_the_fault_or_began_later() -> None:
    assert longest([], FAULT, 20.0) is None
    assert longest([operation("read", 1.0, 9.9)], FAULT, 20.0) is None
    operations = [operation("read", 9.5, 10.5), operation("read", 11.0, 11.1)]
    assert longest(operations, FAULT, 20.0) == pytest.approx(1.0)
    assert longest([*operations, operation("read", 12.0, None)], FAULT, 20.0) == 8.0


def test_wrong_writes_were_sent_late_and_are_on_the_old_master_alone() -> None:
    lost = operation("write", 10.5, None, answered=None, host=None, row=1)
    sent_before = operation("write", 10.5, 12.0, "node1", row=2)
    acknowledged = operation("write", 11.5, 11.6, "node1", row=3)
    arrived_later = operation("write", 11.5, 13.0, answered=None, error="OSError", row=4)
    right = operation("write", 11.5, 11.6, "node2", row=5)
    operations = [lost, sent_before, acknowledged, arrived_later, right]
    assert wrong_writes(operations, "node1", {1, 2, 3, 4}, 11.0) == [acknowledged, arrived_later]
    assert wrong_writes(operations, "node1", set(), 11.0) == [acknowledged]


def test_errors_count_from_the_fault_on() -> None:
    operations = [failed("read", 9.0, 9.9), failed("read", 9.9, 10.1), failed("write", 12.0, 12.1)]
    assert errors_of(operations, FAULT) == {"OSError": 2}


def test_rounds_come_to_the_median_outage_and_the_worst_of_the_rest() -> None:
    rounds = [Figures(outage=o, longest=o, wrong=w) for o, w in ((0.1, 0), (0.9, 2), (0.2, 1))]
    found = merged(rounds)
    assert (found.outage, found.longest, found.wrong) == (0.2, 0.9, 2)
    assert merged([Figures(outage=0.1), Figures(outage=NEVER)]).outage == NEVER


def test_a_limit_is_missed_by_too_much_by_never_and_by_no_figures_at_all() -> None:
    limit = next(iter(FAULTS["master-killed"].limits))
    assert Figures(outage=0.15).holds(limit)
    assert not Figures(outage=0.151).holds(limit)
    assert not Figures(outage=NEVER).holds(limit)
    assert not Figures(problem="did not begin").holds(limit)


def test_only_pyscopg2_can_miss() -> None:
    bad = Figures(outage=NEVER, wrong=1, hung=3, tasks=1, terminate=0.1)
    assert misses({("master-killed", "hasql-asyncpg"): bad}) == []
    lines = misses({("master-killed", OURS): bad})
    assert lines == [
        f"master-killed: {OURS}: outage never, at most 0.15",
        f"master-killed: {OURS}: tasks left 1, at most 0",
    ]
    assert misses({("master-killed", OURS): Figures(outage=0.1, terminate=0.1)}) == []


def test_every_figure_is_shown_in_every_form() -> None:
    found = {
        (fault, name): Figures(outage=0.25, operations=7, terminate=NEVER, wrong=3)
        for fault in FAULTS
        for name in CONTESTANTS
    }
    console = Console(width=200, record=True, file=io.StringIO())
    show(found, console)
    document = markdown(found)
    for text in (console.export_text(), document):
        for word in ("0.250 s", "never", *CONTESTANTS):
            assert word in text
        for fault in FAULTS.values():
            assert fault.title[1:] in text
    rows = json.loads(as_json(found))
    assert len(rows) == len(found)
    assert rows[0]["never"] == ["terminate"]


def test_results_replace_those_in_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "faults.md"
    shutil.copy(report.DOCS / page.name, page)
    monkeypatch.setattr(report, "DOCS", tmp_path)
    for outage in (0.25, 0.5):
        publish({("master-killed", OURS): Figures(outage=outage)}, "Here and now.")
    text = page.read_text()
    assert text.startswith("# What a fault costs")
    assert text.count("## Results\n\nHere and now.") == 1
    assert ("0.500 s" in text, "0.250 s" in text) == (True, False)


def test_contestants_meet_each_fault_in_groups_round_by_round() -> None:
    found = scenarios(["a", "b"], ["x", "y", "z"], together=2, rounds=2)
    assert [(s.fault, list(s.contestants)) for s in found[:4]] == [
        ("a", ["x", "y"]),
        ("a", ["z"]),
        ("b", ["x", "y"]),
        ("b", ["z"]),
    ]
    assert found[4:] == found[:4]
    assert set(QUICK) < set(CONTESTANTS)
