"""What people see fits their terminal, at 80 columns and at 160, and tells all that it has to."""

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType
from rich.text import Text
from tests.cli.support import run

from pyscopg2.cli.check.finding import Kind
from pyscopg2.cli.chronicle import Line
from pyscopg2.cli.exit_code import ExitCode
from pyscopg2.cli.views import units
from pyscopg2.cli.views.watch_view import show_moment
from pyscopg2.core.events import MasterChanged
from pyscopg2.core.statistics import HostStats, Stats
from pyscopg2.core.topology import HostState, Role, Topology

LONG = "db-with-a-long-name.eu-central-1.rds.example.com:5432"


def topology(*hosts: HostState) -> Topology:
    return replace(Topology.of(tuple(host.address for host in hosts)), hosts=hosts)


def stats(known: Topology) -> Stats:
    hosts = tuple(
        HostStats(
            address=host.address,
            role=host.role,
            serving=host.serving,
            size=None,
            in_use=0,
            idle=None,
            idle_min=None,
            idle_max=None,
            waiting=0,
            lag=0.0123,
            response_time=None,
            acquires=0,
            connects=0,
            failed_connects=0,
            checks=123456,
            failed_checks=12345,
            terminated=0,
            retired=0,
        )
        for host in known
    )
    return Stats(hosts, waiting=0, timeouts={}, failovers=3)


def drawn(view: RenderableType, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(view)
    return capture.get().splitlines()


HOSTS = topology(
    HostState(LONG, Role.MASTER, response_time=0.00123),
    HostState("db2:5432", Role.UNAVAILABLE, reason="TimeoutError: no answer within 1 s " * 9),
    HostState("db3:5432", Role.SUPERSEDED, overdue=True),
)


@pytest.mark.parametrize("height", [10, 24])
@pytest.mark.parametrize("width", [80, 160])
def test_watch_fits_its_terminal(width: int, height: int) -> None:
    lines = [Line(MasterChanged(before=f"db{number}:5432", after=LONG)) for number in range(99)]
    seen = drawn(show_moment(HOSTS, stats(HOSTS), lines, width, height), width)
    assert len(seen) <= height
    assert max(map(len, seen)) <= width
    text = "\n".join(seen)
    for word in ("unavailable", "superseded late", "1.23 ms", "12.3 ms", "12345", "TimeoutError"):
        assert word in text, text
    assert ("timeline" in text) == (width == 160)
    assert "master: db98:5432 -> db-with-a-long-name" in seen[-1]


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("command", ["check", "status"])
def test_tables_fit_their_terminal(command: str, width: int) -> None:
    addresses = f"127.0.0.1:1,nowhere.invalid:5432,{'long.' * 20}invalid:5432"
    done = run(command, f"postgresql://u:p@{addresses}/d", width=width)
    assert done.exit_code == ExitCode.BROKEN
    lines = done.stdout.splitlines()
    assert width // 2 < max(map(len, lines)) <= width
    assert "\x1b" not in done.stdout
    if command == "check":
        told = " ".join(done.stdout.split())
        assert Kind.NAME_UNKNOWN.remedy in told


def test_what_servers_say_is_no_markup() -> None:
    evil = topology(HostState("db1:5432", Role.UNAVAILABLE, reason="[bold red]:smile: [/]"))
    seen = drawn(show_moment(evil, stats(evil), [], 160, 24), 160)
    assert any("[bold red]:smile: [/]" in line for line in seen)


def test_numbers() -> None:
    assert [
        units.seconds(value) for value in (None, 0.0000123, 0.00123, 0.1234, 0.9999, 61.23)
    ] == [
        "—",
        "12 µs",
        "1.23 ms",
        "123 ms",
        "1 s",
        "61.2 s",
    ]
    assert [units.size(value) for value in (None, 0, 1000, 2048, 3 * 2**20, 5 * 2**40)] == [
        "—",
        "0 B",
        "1e+03 B",
        "2 KiB",
        "3 MiB",
        "5 TiB",
    ]
    assert isinstance(Text(units.number(None)), Text)
