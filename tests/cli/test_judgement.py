"""What facts and topologies mean, where a real server is not easily brought to it."""

from dataclasses import replace

import pytest

from pyscopg2.cli.check import deadlines
from pyscopg2.cli.check.facts import Facts, offset
from pyscopg2.cli.check.finding import Finding, Kind, Severity
from pyscopg2.cli.check.host_check import HostReport, check_host
from pyscopg2.cli.check.picture import BEHIND_LIMIT, judge_topology
from pyscopg2.cli.check.pooler import Pooler
from pyscopg2.cli.check.report import Report, in_order
from pyscopg2.cli.check.verdict import CLOCK_LIMIT, judge_facts
from pyscopg2.cli.exit_code import ExitCode
from pyscopg2.core.dsn import parse_dsn
from pyscopg2.core.topology import Answer, HostState, Role, Topology

FACTS = Facts("18.0", 1, False, True, None, 0.0)


def kinds(facts: Facts) -> list[Kind]:
    return [finding.kind for finding in judge_facts("db1:5432", facts, Pooler.NONE)]


def test_nothing_is_wrong() -> None:
    assert kinds(FACTS) == []


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_clock_that_is_wrong(sign: int) -> None:
    assert kinds(replace(FACTS, clock_offset=sign * CLOCK_LIMIT)) == []
    assert kinds(replace(FACTS, clock_offset=sign * (CLOCK_LIMIT + 0.1))) == [Kind.CLOCK]


def test_a_clock_is_wrong_by_what_it_is_outside_of_the_round_trip() -> None:
    assert offset(5.0, 4.0, 6.0) == 0
    assert offset(3.0, 4.0, 6.0) == -1
    assert offset(8.0, 4.0, 6.0) == 2


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("configuration file", Kind.READ_ONLY_SERVER),
        ("command line", Kind.READ_ONLY_SERVER),
        ("user", Kind.READ_ONLY_LOGIN),
        ("database", Kind.READ_ONLY_LOGIN),
        ("client", Kind.READ_ONLY_LOGIN),
    ],
)
def test_what_makes_a_primary_read_only(source: str, kind: Kind) -> None:
    assert kinds(replace(FACTS, read_only_by=source)) == [kind]
    assert kinds(replace(FACTS, read_only_by=source, in_recovery=True)) == []


def host(address: str, role: Role, lsn: int | None, *, reason: str = "") -> HostState:
    standby = role is not Role.MASTER
    answer = Answer(
        read_only=standby, in_recovery=standby, lsn=lsn, timeline=1, system_identifier=7
    )
    return HostState(address, role, answer, has_failed=bool(reason), reason=reason)


def known(*hosts: HostState) -> Topology:
    return replace(Topology.of(tuple(each.address for each in hosts)), hosts=hosts)


@pytest.mark.parametrize(("late", "expected"), [(BEHIND_LIMIT, []), (BEHIND_LIMIT + 1, ["db2"])])
def test_a_replica_that_is_far_behind(late: int, expected: list[str]) -> None:
    topology = known(host("db1", Role.MASTER, 2 * BEHIND_LIMIT), host("db2", Role.REPLICA, None))
    assert list(judge_topology(topology, ())) == []
    topology = known(topology["db1"], host("db2", Role.REPLICA, 2 * BEHIND_LIMIT - late))
    found = list(judge_topology(topology, ()))
    assert [(each.kind, each.address) for each in found] == [
        (Kind.BEHIND, address) for address in expected
    ]


def test_a_pooler_that_has_no_server() -> None:
    said = "ConnectionDoesNotExistError: server login has been failing (server_login_retry)"
    topology = known(host("db1", Role.UNAVAILABLE, None, reason=said))
    assert list(judge_topology(topology, ())) == [Finding(Kind.POOLER_ALONE, said, "db1")]


def test_a_check_that_fails_for_a_reason_that_is_not_found() -> None:
    failed = host("db2", Role.UNAVAILABLE, None, reason="TimeoutError: no answer within 1 s")
    topology = known(host("db1", Role.MASTER, 1), failed, host("db3", Role.REPLICA, 1))
    assert list(judge_topology(topology, ())) == [
        Finding(Kind.CHECK_FAILED, "TimeoutError: no answer within 1 s", "db2")
    ]
    assert list(judge_topology(topology, {"db2"})) == []


async def test_a_host_that_is_too_slow_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "ALL", 0.0)
    (target,) = parse_dsn("postgresql://u:p@127.0.0.1:1/d")
    report = await check_host(target)
    assert [finding.kind for finding in report.findings] == [Kind.OUT_OF_TIME]
    assert report.findings[0].text.startswith("to resolve the name")


def test_the_worst_comes_first_and_decides_the_exit_code() -> None:
    note = Finding(Kind.NO_REPLICA, "")
    warning = Finding(Kind.CLOCK, "", "db2")
    fault, other = Finding(Kind.REFUSED, "", "db1"), Finding(Kind.FROZEN, "", "db2")
    of_all = Finding(Kind.NO_MASTER, "")
    found = [note, of_all, warning, other, fault, warning]
    assert in_order(found, ("db1", "db2")) == (fault, other, of_all, warning, note)

    def exit_code(*findings: Finding) -> ExitCode:
        return Report((HostReport("db1"),), known(HostState("db1")), findings, 0.1).exit_code

    assert exit_code() is exit_code(note) is ExitCode.FINE
    assert exit_code(warning, note) is ExitCode.WARNED
    assert exit_code(fault, warning, note) is ExitCode.BROKEN


def test_a_kind_has_a_name_and_a_remedy_of_its_own() -> None:
    assert len({kind.label for kind in Kind}) == len(Kind)
    assert len({kind.remedy for kind in Kind}) == len(Kind)
    assert {kind.severity for kind in Kind} == set(Severity)
