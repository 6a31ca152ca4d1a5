import copy
import itertools
import json
import pickle
from collections.abc import Callable, Iterable
from dataclasses import asdict

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from pyscopg2.core.checkout.request import Request
from pyscopg2.core.checkout.selection import eligible
from pyscopg2.core.topology import HostState, Role, Topology
from pyscopg2.core.topology.host_state import Observation
from pyscopg2.core.topology.judgement import judge
from pyscopg2.core.topology.role_query import Answer

Check = tuple[str, Answer | Exception]

POOL = object()
DOWN = ConnectionRefusedError("refused")


def primary(
    timeline: int = 1,
    system: int = 42,
    *,
    read_only: bool = False,
    lsn: int = 100,
    started: int = 0,
) -> Answer:
    return Answer(read_only, False, lsn, timeline, system, started or None)


def standby(timeline: int = 1, system: int = 42) -> Answer:
    return Answer(True, True, 90, timeline, system)


STANDBY = standby()
PLAIN_MASTER = Answer(False)

_serials = itertools.count(1)


def seen(address: str, what: Answer | Exception, *, pool: object = POOL) -> Observation:
    serial = next(_serials)
    if isinstance(what, Exception):
        return Observation(address, serial, at=serial, error=what, reason="refused")
    return Observation(address, serial, at=serial, answer=what, response_time=0.5, pool=pool)


def after(*checks: Check, fencing: bool = True, settled: bool = True) -> Topology:
    """Hosts a, b and c after these checks."""
    topology = Topology.of(("a", "b", "c"), fencing=fencing)
    if settled:
        topology = topology.settle()
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
    topology = after(("c", STANDBY), ("b", primary()), ("a", STANDBY))
    assert names(topology) == ["a", "b", "c"]
    assert names(topology.masters) == ["b"]
    assert names(topology.replicas) == ["a", "c"]


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
    assert [host.yields_to for host in topology] == ["b", None, "b"]
    assert names(topology.masters) == ["b"]


def test_it_wins_also_when_it_is_down_and_ends_when_it_answers_otherwise() -> None:
    checks: list[Check] = [("a", primary(1)), ("b", primary(2)), ("b", DOWN)]
    assert roles(after(*checks)) == "superseded unavailable unknown"
    # It is restarted as a standby, and knows still that there is a second timeline.
    assert roles(after(*checks, ("b", standby(2)))) == "superseded replica unknown"
    # It was rewound, or rebuilt from the first.
    assert roles(after(*checks, ("b", standby(1)))) == "master replica unknown"
    assert roles(after(*checks, ("b", primary(1)))) == "rival master unknown"
    assert roles(after(*checks, ("b", primary(2, system=7)))) == "master foreign unknown"


def test_what_a_standby_knows_of_a_newer_timeline_counts() -> None:
    topology = after(("a", primary(1)), ("b", standby(2)), ("c", standby(1)))
    assert roles(topology) == "superseded replica replica"
    assert topology["a"].yields_to == "b"
    assert roles(topology.apply(seen("b", DOWN))) == "superseded unavailable replica"
    assert roles(topology.apply(seen("c", primary(2)))) == "superseded replica master"
    assert topology.apply(seen("c", primary(2)))["a"].yields_to == "c"


def test_what_is_forgotten_supersedes_nobody() -> None:
    topology = after(("a", primary(1)), ("b", primary(2)), ("b", DOWN))
    assert "forget('b')" in str(topology["a"])
    forgotten = topology.forget("b")
    assert roles(forgotten) == "master unavailable unknown"
    assert forgotten.master == "a"
    # It is back, after all.
    assert roles(forgotten.apply(seen("b", primary(2)))) == "superseded master unknown"
    with pytest.raises(KeyError):
        topology.forget("elsewhere")
    assert roles(after(("a", primary(1))).forget("a")) == "unknown unknown unknown"


def test_what_is_forgotten_is_no_masters_name() -> None:
    lost = after(("a", primary(1)), ("a", DOWN))
    assert lost.master == "a"
    assert lost.forget("b").master == "a"
    assert lost.forget("a").master is None


def test_a_frozen_master_is_superseded() -> None:
    topology = after(("a", primary(1)), ("a", DOWN), ("b", primary(2)))
    assert roles(topology) == "superseded master unknown"
    told = "a superseded by b (if that is gone for good: forget('b')) (refused)"
    assert str(topology["a"]) == told


# One system has one history


def test_the_one_that_was_master_stays_it() -> None:
    topology = after(("c", primary(3)), ("b", primary(3)), ("a", primary(1)))
    assert roles(topology) == "superseded rival master"
    assert str(topology["b"]) == "b rival of c, on the same timeline"
    assert names(topology.masters) == ["c"]
    # Reachable or not: what the other has written since is another history.
    assert roles(topology.apply(seen("c", DOWN))) == "superseded rival unavailable"
    assert roles(topology.apply(seen("c", standby(3)))) == "superseded master replica"
    assert roles(topology.apply(seen("c", DOWN)).forget("c")) == "superseded master unavailable"


def test_of_two_that_are_new_the_one_that_has_written_more() -> None:
    checks: list[Check] = [("a", primary(2, lsn=5)), ("b", primary(2, lsn=6)), ("c", STANDBY)]
    assert roles(after(*checks, settled=False)) == "rival master replica"
    down: list[Check] = [("b", primary(2, lsn=6)), ("b", DOWN), ("a", primary(2, lsn=5))]
    assert roles(after(*down, ("c", DOWN), settled=False)) == "master unavailable unavailable"


def test_of_one_server_behind_two_addresses_the_other_steps_in() -> None:
    topology = after(("a", primary(started=7)), ("b", primary(started=7)))
    assert roles(topology) == "master rival unknown"
    moved = topology.apply(seen("a", DOWN))
    assert roles(moved) == "unavailable master unknown"
    assert roles(moved.apply(seen("a", primary(started=7)))) == "rival master unknown"


def test_a_host_that_tells_no_system_cannot_be_compared() -> None:
    assert roles(after(("a", primary()), ("b", PLAIN_MASTER))) == "master master unknown"


# The system that counts


def test_a_host_of_another_system_serves_nobody() -> None:
    checks: list[Check] = [("a", primary()), ("b", STANDBY), ("c", STANDBY)]
    topology = after(*checks, ("c", primary(9, system=7)))
    assert roles(topology) == "master replica foreign"
    assert str(topology["c"]) == "c foreign: of system 7, while most hosts are of 42"
    lost = topology.apply(seen("a", DOWN))
    assert roles(lost) == "unavailable replica foreign"
    promoted = lost.apply(seen("b", primary(2)))
    assert roles(promoted) == "superseded master foreign"
    assert roles(promoted.apply(seen("c", DOWN))) == "superseded master unavailable"
    assert roles(promoted.apply(seen("c", standby(2)))) == "superseded master replica"


def test_on_a_tie_the_system_with_a_master_counts_then_the_one_that_has_counted() -> None:
    foreign = after(("b", standby(system=7)), ("a", primary()))
    assert roles(foreign) == "master foreign unknown"
    both = after(("a", primary()), ("b", primary(system=7)))
    assert roles(both) == "master foreign unknown"
    assert roles(both.apply(seen("a", DOWN))) == "unavailable foreign unknown"
    assert roles(both.apply(seen("a", DOWN)).forget("a")) == "unavailable master unknown"


def test_a_cluster_that_moves_to_another_system_is_followed() -> None:
    topology = after(("a", primary()), ("b", STANDBY), ("c", STANDBY))
    topology = topology.apply(seen("c", standby(system=7)))
    assert roles(topology) == "master replica foreign"
    topology = topology.apply(seen("b", standby(system=7)))
    assert roles(topology) == "foreign replica replica"
    topology = topology.apply(seen("a", primary(system=7)))
    assert roles(topology) == "master replica replica"


def test_one_host_alone_is_followed_to_whatever_system() -> None:
    topology = Topology.of(("a",)).apply(seen("a", primary()))
    assert roles(topology.apply(seen("a", primary(system=7)))) == "master"


# Before every host has answered


def test_no_master_is_named_before_every_host_has_answered_or_failed() -> None:
    topology = after(("a", primary(1)), ("b", STANDBY), settled=False)
    assert (names(topology.masters), topology.master) == ([], None)
    assert names(topology.apply(seen("c", DOWN)).masters) == ["a"]
    assert names(topology.settle().masters) == ["a"]
    assert topology.settle().settle().master == "a"
    newer = topology.apply(seen("c", primary(2)))
    assert names(newer.masters) == ["c"]


def test_reads_wait_until_it_is_known_which_system_counts() -> None:
    topology = after(("a", standby(system=7)), settled=False)
    assert topology.replicas == ()
    assert names(topology.settle().replicas) == ["a"]
    assert names(topology.apply(seen("b", standby(system=7))).replicas) == ["a", "b"]
    assert names(after(("a", Answer(True)), settled=False).replicas) == ["a"]


def test_reads_that_may_go_anywhere_wait_as_well() -> None:
    topology = after(("a", primary()), ("b", standby(system=7)), settled=False)
    assert eligible(topology, Request(read_only=True, masters_too=True)) == ()
    assert eligible(topology, Request(read_only=True, fallback_master=True)) == ()
    assert names(eligible(topology.settle(), Request(read_only=True, masters_too=True))) == ["a"]


def test_without_fencing_nobody_waits_for_others() -> None:
    topology = after(("a", primary()), ("b", standby(system=7)), fencing=False, settled=False)
    assert (names(topology.masters), names(topology.replicas)) == (["a"], ["b"])


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
    st.builds(
        primary,
        st.integers(1, 3),
        st.integers(1, 2),
        read_only=st.booleans(),
        started=st.integers(0, 2),
    ),
    st.builds(standby, st.integers(1, 3), st.integers(1, 2)),
    st.sampled_from([PLAIN_MASTER, DOWN]),
)


@given(st.lists(st.tuples(st.sampled_from("abc"), ANSWERS), max_size=12), st.booleans())
def test_what_holds_whatever_was_seen(checks: list[Check], settled: bool) -> None:
    topology = after(*checks, settled=settled)
    told = [host for host in topology.masters if host.system is not None]
    assert len(told) <= 1
    assert not {*topology.masters} & {*topology.replicas}
    for host in topology:
        answer = host.answer
        if host.role is Role.SUPERSEDED:
            assert answer is not None
            assert not answer.in_recovery
            assert host.yields_to is not None
            newer = topology[host.yields_to].answer
            assert newer is not None
            assert (newer.timeline or 0) > (answer.timeline or 0)
        if host.serving:
            assert host.system in (None, topology.system)
    # Judging again, and checks that tell the same again, change nothing.
    if topology.settled:
        assert judge(topology.hosts, topology.system, topology.master) == topology.hosts
    for host in topology:
        if host.answering and host.answer is not None:
            again = topology.apply(seen(host.address, host.answer))
            assert roles(again) == roles(topology)


# What people see


def test_a_host_shows_its_state() -> None:
    assert str(after(("a", primary()))["a"]) == "a master"
    assert str(after(("a", DOWN))["a"]) == "a unavailable (refused)"
    assert str(after(("a", PLAIN_MASTER))["a"]) == "a master (tells no timeline: no fencing)"
    login = Answer(False, False, 1, 1, 42, login_is_read_only=True)
    told = "a master (this login's transactions are read-only)"
    assert str(after(("a", login))["a"]) == told


# Shown


def shown() -> Topology:
    return after(("a", primary(system=2**63 + 1)), ("b", standby(system=2**63 + 1)), ("c", DOWN))


def test_a_topology_for_json() -> None:
    told = json.loads(json.dumps(shown().as_dict(), allow_nan=False))
    assert {name: told[name] for name in told.keys() - {"hosts"}} == {
        "master": "a",
        # JavaScript knows no number that large.
        "system_identifier": str(2**63 + 1),
        "fencing": True,
        "settled": True,
    }
    a, b, c = told["hosts"]
    assert (a["address"], a["role"], a["serving"], a["lag"], a["lsn"]) == (
        "a",
        "master",
        True,
        0.0,
        "0/64",
    )
    assert (b["role"], b["in_recovery"], b["timeline"]) == ("replica", True, 1)
    assert (b["lag"], b["lag_reason"]) == (None, "the master's position is not known")
    assert (c["role"], c["reason"], c["answering"]) == ("unavailable", "refused", False)
    assert a.keys() == b.keys() == c.keys()


class Unpicklable:
    """As a driver's pool."""

    def __reduce__(self) -> str:
        raise TypeError("a live object")

    def __deepcopy__(self, memo: object) -> object:
        raise TypeError("a live object")


class UnpicklableError(Exception, Unpicklable): ...


def pickled(topology: Topology) -> Topology:
    same: Topology = pickle.loads(pickle.dumps(topology))
    return same


def copied_in_depth(topology: Topology) -> Topology:
    return copy.deepcopy(topology)


@pytest.mark.parametrize("copied", [copied_in_depth, pickled])
def test_a_copy_is_the_same_without_what_is_live(copied: Callable[[Topology], Topology]) -> None:
    topology = after().apply(seen("a", primary(), pool=Unpicklable()))
    topology = topology.apply(seen("b", UnpicklableError()))
    same = copied(topology)
    assert same == topology
    assert str(same) == str(topology)
    assert same.as_dict() == topology.as_dict()
    assert names(same.masters) == ["a"]
    assert (same["a"].pool, same["b"].error) == (None, None)
    assert topology["a"].pool is not None
    assert same.apply(seen("a", DOWN))["a"].role is Role.UNAVAILABLE


def test_what_is_live_is_no_part_of_equality() -> None:
    one, other = (
        after().apply(Observation("a", 1, at=1.0, answer=primary(), pool=pool))
        for pool in (object(), object())
    )
    assert one == other
    assert one != after().apply(Observation("a", 1, at=1.0, answer=primary()))


def test_dataclasses_make_a_dictionary_of_it() -> None:
    told = asdict(after(("a", primary()), ("b", DOWN)))
    assert told["hosts"][0]["role"] is Role.MASTER


async def test_a_fastapi_handler_may_return_it() -> None:
    app = FastAPI()
    topology = shown()
    app.get("/")(lambda: topology)
    app.get("/dict")(lambda: topology.as_dict())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        whole = await client.get("/")
        assert whole.json()["hosts"][0]["role"] == "master"
        told = await client.get("/dict")
        assert told.json() == json.loads(json.dumps(topology.as_dict()))
