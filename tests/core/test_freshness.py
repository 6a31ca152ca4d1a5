"""What is proven of a host, by its last answer and the master's clock."""

from dataclasses import replace
from typing import Any

import pytest

from pyscopg2.core.topology import Topology
from pyscopg2.core.topology.freshness import freshness, told
from pyscopg2.core.topology.host_state import HostState, Observation, Role
from pyscopg2.core.topology.lsn_clock import LsnClock, Sample
from pyscopg2.core.topology.role_query import Answer, WalState
from pyscopg2.core.wal import WalPosition

SYSTEM = 42
CLOCK = LsnClock(SYSTEM, 2, 90, (Sample(100, 100, 1, 0.6, told_at=5.1, asked_at=5.0),))
REPLICA = HostState(
    "r",
    Role.REPLICA,
    Answer(True, True, 100, 2, SYSTEM, receives=2),
    is_direct=True,
    has_pool=True,
)


def answering(**changes: Any) -> HostState:
    assert REPLICA.answer is not None
    return replace(REPLICA, answer=replace(REPLICA.answer, **changes))


def test_a_replica_that_has_replayed_what_the_master_told_is_as_old_as_the_question() -> None:
    known = freshness(REPLICA, CLOCK)
    assert (known.moment, known.reason) == (5.0, "")
    assert known.describe(5.25) == "0.25 s behind at most"
    assert known.describe(4.0) == "0 s behind at most"


def test_a_master_is_never_behind() -> None:
    known = freshness(HostState("m", Role.MASTER, clock=CLOCK), CLOCK)
    assert known.moment == float("inf")
    assert known.covers(WalPosition(SYSTEM, 2, 10**9))
    assert not known.covers(WalPosition(SYSTEM, 3, 1))
    assert not known.covers(WalPosition(43, 2, 1))


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (replace(REPLICA, role=Role.UNAVAILABLE), "it does not answer"),
        (replace(REPLICA, has_failed=True), "it does not answer"),
        (replace(REPLICA, answer=None), "it does not answer"),
        (answering(system_identifier=None), "it tells no position"),
        (answering(system_identifier=43), "it is of another system"),
        (answering(lsn=None), "it replays nothing"),
        (answering(in_recovery=False), "it replays nothing"),
        (answering(receives=1), "last seen on timeline 1, the master is on 2"),
        (
            answering(receives=None, timeline=1),
            "last seen on timeline 1, the master is on 2 (pg_monitor tells sooner)",
        ),
        (answering(lsn=99), "further than the master is known"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_known_is_not_fresh(host: HostState, reason: str) -> None:
    known = freshness(host, CLOCK)
    assert (known.moment, known.reason) == (float("-inf"), reason)
    assert known.describe(5.0) == f"not known how far behind: {reason}"


def test_without_the_masters_clock_nothing_is_known() -> None:
    known = freshness(REPLICA, None)
    assert known.reason == "the master's position is not known"
    assert not known.covers(WalPosition(SYSTEM, 1, 1))


def test_behind_a_service_it_is_of_the_server_that_was_asked() -> None:
    known = freshness(replace(REPLICA, is_direct=False), CLOCK)
    assert (known.moment, known.is_direct) == (5.0, False)
    assert known.describe(5.5) == "0.5 s behind at most, where its address leads now"


@pytest.mark.parametrize(("timeline", "is_known"), [(7, False), (6, True)])
def test_without_fencing_a_lost_master_of_the_same_timeline_leaves_nothing_known(
    timeline: int, is_known: bool
) -> None:
    """Whom a standby follows of the two, nobody can tell."""
    topology = Topology.of(("a", "b"), fencing=False)
    for serial, (address, on) in enumerate((("a", timeline), ("b", 7)), 1):
        wal = WalState(100, 100, 1, 0.6)
        answer = Answer(False, False, 100, on, 42, wal=wal)
        seen = Observation(address, serial, at=1.0, answer=answer, asked_at=1.0, pool=object())
        topology = topology.apply(seen)
    assert topology.clock is None
    down = Observation("a", 3, at=2.0, error=OSError(), reason="gone")
    clock = topology.apply(down).clock
    assert (clock is not None) is is_known


def test_what_a_server_tells_itself() -> None:
    assert REPLICA.answer is not None
    assert told(REPLICA.answer, CLOCK).moment == 5.0
    primary = Answer(False, False, 100, 2, SYSTEM, wal=WalState(100, 100, 1, 0.6))
    assert told(primary, CLOCK).moment == float("inf")
    assert told(replace(primary, timeline=1), CLOCK).reason == "it replays nothing"
    assert told(replace(primary, system_identifier=1), CLOCK).reason == "it is of another system"
    assert told(primary, None).reason == "the master's position is not known"


def test_a_login_that_may_not_know_what_is_received_goes_by_the_control_file() -> None:
    assert freshness(answering(receives=None), CLOCK).moment == 5.0


@pytest.mark.parametrize(
    ("position", "covered"),
    [
        (WalPosition(SYSTEM, 2, 100), True),
        (WalPosition(SYSTEM, 2, 101), False),
        (WalPosition(SYSTEM, 1, 10**9), True),
        (WalPosition(SYSTEM, 3, 1), False),
        (WalPosition(43, 2, 1), False),
    ],
    ids=str,
)
def test_positions_of_its_timeline_and_of_older_ones_are_covered(
    position: WalPosition, covered: bool
) -> None:
    assert freshness(REPLICA, CLOCK).covers(position) is covered


@pytest.mark.parametrize(
    ("lsn", "replayed", "covered"),
    [(80, 80, True), (80, 79, False), (95, 90, True), (95, 89, False), (10**9, 89, False)],
)
def test_of_an_older_timeline_what_is_left_has_to_be_replayed(
    lsn: int, replayed: int, covered: bool
) -> None:
    """The timeline that the master is on began at 90 at the latest."""
    assert freshness(answering(lsn=replayed), CLOCK).covers(WalPosition(SYSTEM, 1, lsn)) is covered


def test_one_that_is_further_behind_than_is_remembered_covers_what_it_has_replayed() -> None:
    known = freshness(answering(lsn=99), CLOCK)
    assert known.covers(WalPosition(SYSTEM, 2, 99))
    assert not known.covers(WalPosition(SYSTEM, 2, 100))
