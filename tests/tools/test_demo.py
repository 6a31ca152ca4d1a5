"""The demo: its figures and exit codes, and that it leaves nothing behind."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest
from rich.cells import cell_len
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.demo.ledger import Ledger, Meter, Rates, Stage
from tools.demo.report import Findings, Outage, Rows, failed_checks, summary
from tools.demo.view import Board, HostRow, LiveView, PlainView, sparkline

ROOT = Path(__file__).parents[2]
HOSTS = ("node1", "node2", "node3")


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def a_good_run() -> tuple[Findings, Ledger]:
    """A kill at 10.0, a promotion asked for at 11.0 and done at 11.4, a write at 11.5."""
    clock = Clock()
    ledger = Ledger(clock)
    for clock.now in (9.8, 9.9, 10.0):
        ledger.success("write", "node1")
        ledger.success("read", "node2")
    ledger.stage = Stage.OUTAGE
    ledger.failure("write", ConnectionError("reset"), "node1")
    ledger.failure("write", TimeoutError("no master"))
    ledger.success("read", "node3")
    ledger.successor = "node2"
    clock.now = 11.5
    ledger.success("write", "node2")
    ledger.stage = Stage.REJOINED
    clock.now = 12.0
    ledger.success("write", "node2")
    ledger.success("read", "node1")
    found = Findings(
        HOSTS,
        old_master="node1",
        new_master="node2",
        asked=11.0,
        writable=11.4,
        roles={"node1": "replica", "node2": "master", "node3": "replica"},
        rows=Rows(acknowledged=5, lost=0, in_doubt=1, committed=1),
    )
    return found, ledger


# The ledger


def test_the_first_write_on_the_successor_ends_the_outage() -> None:
    _, ledger = a_good_run()
    assert ledger.count("write", "node2", Stage.OUTAGE) == 0
    assert ledger.count("write", "node2", Stage.PROMOTED) == 1


def test_a_late_write_on_the_old_master_does_not_end_the_outage() -> None:
    ledger = Ledger()
    ledger.stage = Stage.OUTAGE
    ledger.successor = "node2"
    ledger.success("write", "node1")
    assert ledger.stage is Stage.OUTAGE


def test_the_ledger_counts_by_kind_host_and_stage() -> None:
    _, ledger = a_good_run()
    assert ledger.count("write") == 5
    assert ledger.count("write", "node1") == 3
    assert ledger.count("read", stage=Stage.BEFORE) == 3
    assert ledger.errors() == {"ConnectionError": 1, "TimeoutError": 1}
    assert not ledger.errors("read")
    assert not ledger.errors(stage=Stage.REJOINED)
    assert ledger.failed_on == {"node1": 1}
    assert ledger.longest_pause == pytest.approx({"write": 1.5, "read": 2.0})


def test_a_meter_tells_rates_over_its_window() -> None:
    ledger = Ledger(Clock())
    meter = Meter(ledger, HOSTS, window=3)
    rates = meter.look(0.0)
    assert rates["node1"].writes == 0
    for second in range(1, 5):
        for _ in range(10 * second):
            ledger.success("write", "node1")
        ledger.failure("write", TimeoutError())
        rates = meter.look(float(second))
    assert rates["node1"].writes == 35
    assert rates["node2"].writes == 0
    assert rates[None].writes == 35
    assert rates[None].errors == 1
    assert list(meter.history["write"]) == [10, 20, 30, 40]


# The figures


def test_the_parts_of_an_outage_add_up() -> None:
    outage = Outage.between(last_write=10.0, asked=11.0, writable=11.4, first_write=11.5)
    assert outage.undecided == pytest.approx(1.0)
    assert outage.promotion == pytest.approx(0.4)
    assert outage.routing == pytest.approx(0.1)
    assert outage.total == pytest.approx(1.5)


def test_routing_never_took_less_than_nothing() -> None:
    outage = Outage.between(last_write=10.0, asked=11.0, writable=11.502, first_write=11.5)
    assert outage.routing == 0
    assert outage.total == pytest.approx(1.5)


def test_rows_are_told_apart() -> None:
    ledger = Ledger()
    ledger.acknowledged = {1, 2, 3}
    ledger.in_doubt = {4, 5}
    assert Rows.compare(ledger, {1, 3, 5}) == Rows(acknowledged=3, lost=1, in_doubt=2, committed=1)


def test_the_summary_of_a_good_run() -> None:
    found, ledger = a_good_run()
    lines = summary(found, ledger)
    text = "\n".join(lines)
    assert failed_checks(found, ledger) == []
    assert lines[-1] == "OK: routing recovered, nothing leaked."
    assert re.search(r"(?m)^write outage +1\.500 s", text)
    assert re.search(r"(?m)^  PostgreSQL +0\.400 s", text)
    assert re.search(r"(?m)^  routing +0\.100 s", text)
    assert re.search(r"(?m)^errors of writes +2 +1 ConnectionError, 1 TimeoutError$", text)
    assert re.search(r"(?m)^  node1 +3 +0 +0 +0$", text)
    assert re.search(r"(?m)^left behind +nothing", text)
    assert max(map(len, lines)) <= 80


# What makes it fail


def test_writes_that_stay_away_fail_it() -> None:
    found, ledger = a_good_run()
    del ledger.first_write["node2"]
    assert failed_checks(found, ledger) == ["Writes did not come back after the promotion."]
    assert "did not end" in "\n".join(summary(found, ledger))


def test_a_story_that_went_nowhere_fails_without_a_crash() -> None:
    found = Findings(HOSTS, old_master="node1")
    assert failed_checks(found, Ledger())
    assert summary(found, Ledger())[-1].startswith("FAILED: ")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("roles", {"node1": "unavailable", "node2": "master", "node3": "replica"}, "node1 should"),
        ("not_free", {"node2": 1}, "1 connections to node2 did not come back"),
        ("backends", {"node3": 2}, "2 server processes of the manager are left on node3"),
        ("tasks", ["Task-9"], "Tasks left in the event loop: Task-9."),
        ("complaints", ["boom"], "The event loop complained: boom."),
    ],
)
def test_a_leak_or_a_host_that_stays_away_fails_it(name: str, value: object, sentence: str) -> None:
    found, ledger = a_good_run()
    setattr(found, name, value)
    (failed,) = failed_checks(found, ledger)
    assert sentence in failed
    assert summary(found, ledger)[-1] == f"FAILED: {failed}"


def test_errors_and_stray_writes_at_the_end_fail_it() -> None:
    found, ledger = a_good_run()
    ledger.failure("read", TimeoutError())
    ledger.success("write", "node1")
    assert failed_checks(found, ledger) == [
        "1 writes went to node1, which is no master any more.",
        "Errors after all hosts were back: 1 TimeoutError.",
    ]


def test_nothing_is_the_only_blank_in_a_sparkline() -> None:
    assert sparkline([0, 0.1, 50, 100], 10) == " ▁▄█"
    assert sparkline([1, 2, 3], 2) == "▅█"
    assert sparkline([], 10) == ""
    assert sparkline([0, 0], 10) == "  "
    assert sparkline([100], 10, ascii_only=True) == "%"


# The screen


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
async def test_the_screen_shows_the_hosts_the_story_and_the_log(width: int, height: int) -> None:
    terminal = io.StringIO()
    console = Console(
        file=terminal, force_terminal=True, color_system=None, width=width, height=height
    )
    hosts = tuple(
        HostRow(name, f"127.0.0.1:2000{number}", "unavailable", 0.00123, 10, Rates(1, 2, 3))
        for number, name in enumerate(HOSTS)
    )
    with LiveView(console) as view:
        view.tell("phase", "kill the master")
        view.tell("log", "WARNING " + "x" * 200)
        for number in range(50):
            view.tell("event", f"event {number}")
        await view.show(Board(hosts, Rates(4, 5, 6), [0, 1, 2], [1, 1, 1]))
        screen = terminal.getvalue().rpartition("\x1b[H")[2].split("\n")
    assert len(screen) == height
    assert {cell_len(line) for line in screen} == {width}
    assert "kill the master" in screen[0]
    assert any(
        re.search(r"node3 127\.0\.0\.1:20002 +unavailable +1\.23 ms", line) for line in screen
    )
    assert any("event 49" in line for line in screen)
    assert any("WARNING xxx" in line for line in screen)


async def test_plain_lines_hold_a_second_of_figures(capsys: pytest.CaptureFixture[str]) -> None:
    host = HostRow("node1", "127.0.0.1:20001", "superseded", None, None, Rates(0, 0, 2))
    view = PlainView()
    await view.show(Board((host,), Rates(7, 8, 9), [], []))
    await view.show(Board((host,), Rates(7, 8, 9), [], []))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(
        "rates  writes/s=7 reads/s=8 errors/s=9 | node1 superseded - free=- w=0 r=0 e=2"
    )


# The whole


@contextlib.contextmanager
def demo(tmp_path: Path, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """The demo with its cluster's files below `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-m", "tools.demo", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"never said {words!r}:\n{said}")


def is_below(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return process.status() != psutil.STATUS_ZOMBIE and folder in Path(process.cwd()).parents
    return False


def assert_nothing_is_left(folder: Path) -> None:
    assert [p for p in psutil.process_iter() if is_below(p, folder)] == []
    assert list(folder.iterdir()) == []


def test_the_story_from_start_to_end(tmp_path: Path) -> None:
    with demo(tmp_path, "--quick", "--keep", "--policy", "round-robin") as process:
        said = read_until(process, "asyncio.run(main())")
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    assert process.returncode == 0, said
    for words in (
        r"phase  steady: ",
        r"phase  kill the master: node1",
        r"phase  promote node\d",
        r"phase  old master rejoins as replica",
        r"phase  steady again",
        r"rates  writes/s=\d+ reads/s=\d+ errors/s=\d+ \| node1 master ",
        r"log    WARNING 127\.0\.0\.1:\d+ unavailable ",
    ):
        assert re.search(rf"(?m)^ *\d+\.\d\ds {words}", said), said
    assert re.search(r"(?m)^write outage +\d+\.\d{3} s  last write on node1 to", said), said
    assert "\nOK: routing recovered, nothing leaked.\n" in said
    assert re.search(r"(?m)^postgresql://.*/postgres$", said), said
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "phase  start"),
        (signal.SIGINT, "phase  promote"),
        (signal.SIGTERM, "phase  steady"),
    ],
)
def test_a_signal_ends_it_and_cleans_up(
    tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    with demo(tmp_path, "--quick", "--replicas", "1") as process:
        read_until(process, moment)
        process.send_signal(number)
        began = time.monotonic()
        said, _ = process.communicate(timeout=30)
        assert time.monotonic() - began < 15
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert_nothing_is_left(tmp_path)
