import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyscopg2.core.probe import Answer
from pyscopg2.core.topology import HostState, Observation, Role, Topology

Check = tuple[str, Answer | Exception]

POOL = object()
DOWN = ConnectionRefusedError("refused")


def primary(timeline: int = 1, system: int = 42, *, read_only: bool = False) -> Answer:
    return Answer(read_only, False, 100, timeline, system)


STANDBY = Answer(True, True, 90, None, 42)
PLAIN_MASTER = Answer(False)

_serials = itertools.count(1)


def seen(address: str, what: Answer | Exception, *, pool: object = POOL) -> Observation:
    serial = next(_serials)
    if isinstance(what, Exception):
        return Observation(address, serial, at=serial, error=what, reason="refused")
    return Observation(address, serial, at=serial, answer=what, response_time=0.5, pool=pool)


def after(*checks: Check, fencing: bool = True) -> Topology:
    """Hosts a, b and c after these checks."""
    topology = Topology.of(("a", "b", "c"), fencing=fencing)
    for address, what in checks:
        topology = topology.apply(seen(address, what))
    return topology


def roles(topology: Topology) -> str:
    return " ".join(host.role.value for host in topology)


def names(hosts: Iterable[HostState]) -> list[str]:
    return [host.address for host in hosts]


def test_before_the_first_check() -> None:
    topology = after()
    assert roles(topology) == "unknown unknown unknown"
    assert (topology.masters, topology.replicas) == ((), ())
    assert len(topology) == 3
    assert str(topology) == "a unknown; b unknown; c unknown"


@pytest.mark.parametrize(
    ("answer", "role"),
    [
        (primary(), Role.MASTER),
        (STANDBY, Role.REPLICA),
        (primary(read_only=True), Role.REPLICA),
        (PLAIN_MASTER, Role.MASTER),
        (Answer(True), Role.REPLICA),
    ],
)
def test_a_role_follows_from_the_answer(answer: Answer, role: Role) -> None:
    host = after(("a", answer))["a"]
    assert host.role is role
    assert host.answer is answer
    assert host.serving
    assert host.answering
    assert host.response_time == 0.5


def test_hosts_keep_the_order_of_the_dsn() -> None:
    topology = after(("c", primary()), ("a", primary()), ("b", STANDBY))
    assert names(topology) == ["a", "b", "c"]
    assert names(topology.masters) == ["a", "c"]
    assert names(topology.replicas) == ["b"]


def test_a_failed_check_keeps_the_last_answer() -> None:
    topology = after(("a", primary()), ("a", DOWN))
    host = topology["a"]
    assert host.role is Role.UNAVAILABLE
    assert (host.answer, host.error, host.pool) == (primary(), DOWN, None)
    assert host.answered_at is not None
    assert host.answered_at < host.serial
    assert not host.answering
    assert topology.masters == ()


def test_an_answer_ends_the_error() -> None:
    host = after(("a", DOWN), ("a", primary()))["a"]
    assert (host.role, host.error, host.reason) == (Role.MASTER, None, "")


def test_without_a_pool_a_host_does_not_serve() -> None:
    topology = Topology.of(("a",)).apply(seen("a", primary(), pool=None))
    assert topology["a"].role is Role.MASTER
    assert topology.masters == ()


def test_an_unknown_host_changes_nothing() -> None:
    topology = after(("a", primary()))
    assert topology.apply(seen("elsewhere", primary(9))) == topology
    with pytest.raises(KeyError):
        topology["elsewhere"]


def test_snapshots_do_not_change() -> None:
    before = after(("a", primary()))
    before.apply(seen("a", DOWN))
    assert before["a"].role is Role.MASTER
    assert hash(before["a"].address)
    with pytest.raises(AttributeError):
        before.hosts = ()  # type: ignore[misc]


def test_what_has_changed_is_told_host_by_host() -> None:
    before = after(("a", primary(1)), ("b", STANDBY))
    again = before.apply(seen("b", STANDBY))
    assert again.changes(before) == [(before["b"], again["b"])]
    promoted = again.apply(seen("b", primary(2)))
    assert [(old.role, new.role) for old, new in promoted.changes(again)] == [
        (Role.MASTER, Role.SUPERSEDED),
        (Role.REPLICA, Role.MASTER),
    ]
    assert promoted.changes(promoted) == []


# The newest timeline wins


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_the_newest_timeline_wins_whoever_is_seen_first(order: tuple[str, ...]) -> None:
    timelines = {"a": 1, "b": 3, "c": 2}
    topology = after(*((name, primary(timelines[name])) for name in order))
    assert roles(topology) == "superseded master superseded"
    assert [host.superseded_by for host in topology] == ["b", None, "b"]
    assert names(topology.masters) == ["b"]


def test_it_wins_also_when_it_is_down_and_ends_when_it_answers_otherwise() -> None:
    checks: list[Check] = [("a", primary(1)), ("b", primary(2)), ("b", DOWN)]
    assert roles(after(*checks)) == "superseded unavailable unknown"
    assert roles(after(*checks, ("b", STANDBY))) == "master replica unknown"
    assert roles(after(*checks, ("b", primary(1)))) == "master master unknown"
    assert roles(after(*checks, ("b", primary(2, system=7)))) == "master master unknown"


def test_a_frozen_master_is_superseded() -> None:
    topology = after(("a", primary(1)), ("a", DOWN), ("b", primary(2)))
    assert roles(topology) == "superseded master unknown"
    assert str(topology["a"]) == "a superseded by b (refused)"


def test_of_two_newest_masters_the_first_supersedes() -> None:
    topology = after(("c", primary(3)), ("b", primary(3)), ("a", primary(1)))
    assert str(topology) == "a superseded by b; b master; c master"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (primary(3), primary(3)),
        (primary(3), primary(4, system=7)),
        (primary(3), PLAIN_MASTER),
    ],
)
def test_two_masters(one: Answer, other: Answer) -> None:
    assert roles(after(("a", one), ("b", other))) == "master master unknown"


def test_a_primary_that_is_set_read_only_is_on_its_timeline_still() -> None:
    topology = after(("a", primary(5, read_only=True)), ("b", primary(2)), ("c", STANDBY))
    assert roles(topology) == "replica superseded replica"
    topology = after(("a", primary(2, read_only=True)), ("b", primary(5)), ("c", STANDBY))
    assert roles(topology) == "superseded master replica"


def test_without_fencing_all_writable_hosts_are_masters() -> None:
    topology = after(("a", primary(1)), ("b", primary(2)), fencing=False)
    assert roles(topology) == "master master unknown"
    assert not topology.fencing


ANSWERS = st.one_of(
    st.builds(primary, st.integers(1, 3), st.integers(1, 2), read_only=st.booleans()),
    st.sampled_from([STANDBY, PLAIN_MASTER, DOWN]),
)


@given(st.lists(st.tuples(st.sampled_from("abc"), ANSWERS), max_size=12))
def test_the_roles_follow_from_the_last_states_alone(
    checks: list[Check],
) -> None:
    topology = after(*checks)
    last = {name: what for name, what in checks if isinstance(what, Answer)}
    replayed = after(*last.items())
    for host, other in zip(topology, replayed, strict=True):
        if host.error is None or host.role is Role.SUPERSEDED:
            assert (host.role, host.superseded_by) == (other.role, other.superseded_by)
        else:
            assert host.role is Role.UNAVAILABLE
    assert not {*topology.masters} & {*topology.replicas}
    timelines: dict[int, set[int]] = {}
    for host in topology.masters:
        if host.answer is not None and host.answer.system_identifier is not None:
            timelines.setdefault(host.answer.system_identifier, set()).add(
                host.answer.timeline or 0
            )
    assert all(len(found) == 1 for found in timelines.values())


# What people see


def test_a_host_shows_its_state() -> None:
    assert str(after(("a", primary()))["a"]) == "a master"
    assert str(after(("a", DOWN))["a"]) == "a unavailable (refused)"
    assert str(after(("a", PLAIN_MASTER))["a"]) == "a master (tells no timeline: no fencing)"
