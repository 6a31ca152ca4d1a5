"""Events become lines; what is told again and again is told once."""

from dataclasses import replace

from pyscopg2.cli.chronicle import Chronicle, Line
from pyscopg2.core.events import CheckFailed, CheckRecovered, HostChanged, PoolOpened
from pyscopg2.core.topology import HostState, Role


def failed(address: str, reason: str) -> CheckFailed:
    return CheckFailed(address=address, reason=reason, hopeless=False, error=None)


def test_a_host_that_fails_in_the_same_way_is_told_of_once() -> None:
    told: list[Line] = []
    chronicle = Chronicle(10, told.append)
    recovered = CheckRecovered(address="db1", failures=3, failed_for=1.0)
    events = [
        failed("db1", "refused"),
        failed("db1", "refused"),
        failed("db2", "refused"),
        failed("db1", "silent"),
        failed("db1", "refused"),
        recovered,
        failed("db1", "refused"),
    ]
    for event in events:
        chronicle.hear(event)
    assert [line.event for line in told] == [events[0], *events[2:]]
    assert list(chronicle.lines) == told


def test_a_host_that_only_comes_into_service_is_told_of_by_its_pool() -> None:
    chronicle = Chronicle(10)
    unknown = HostState("db1")
    replica = replace(unknown, role=Role.REPLICA)
    serving = replace(replica, has_pool=True)
    changed = HostChanged(before=unknown, after=replica)
    opened = PoolOpened(address="db1", pool=None)
    for event in (changed, HostChanged(before=replica, after=serving), opened):
        chronicle.hear(event)
    assert [line.event for line in chronicle.lines] == [changed, opened]


def test_the_last_lines_are_kept() -> None:
    chronicle = Chronicle(2)
    for number in range(5):
        chronicle.hear(failed("db1", str(number)))
    assert [str(line).rpartition(" ")[2] for line in chronicle.lines] == ["3", "4"]


def test_a_line_tells_when() -> None:
    line = Line(CheckRecovered(at=0.5, address="db1", failures=1, failed_for=2.0))
    assert str(line).endswith(":00.500  db1: answers again, after 2 s")
