import pytest

from pyscopg2.core.checkout.request import Request
from pyscopg2.core.checkout.selection import eligible
from pyscopg2.core.topology import Topology
from pyscopg2.core.topology.host_state import Observation
from pyscopg2.core.topology.role_query import Answer

MASTER = Answer(False, False, 1, 1)
REPLICA = Answer(True, True, 1)
POOLS = {name: object() for name in "mnrsd"}


def topology(*names: str) -> Topology:
    """m and n are masters, r and s replicas, d is down."""
    snapshot = Topology.of(tuple("mnrsd")).settle()
    for serial, name in enumerate(names):
        answer = {"m": MASTER, "n": MASTER, "r": REPLICA, "s": REPLICA}.get(name)
        error = None if answer else OSError()
        pool = POOLS[name] if answer else None
        snapshot = snapshot.apply(
            Observation(name, serial, at=0, answer=answer, error=error, pool=pool)
        )
    return snapshot


ALL = "mnrsd"
WRITE = Request()
READ = Request(read_only=True)
FALL_BACK = Request(read_only=True, fallback_master=True)
ANY = Request(read_only=True, masters_too=True)


@pytest.mark.parametrize(
    ("request_", "hosts", "found"),
    [
        (WRITE, ALL, "mn"),
        (WRITE, "rs", ""),
        (READ, ALL, "rs"),
        (READ, "mn", ""),
        (FALL_BACK, ALL, "rs"),
        (FALL_BACK, "mnd", "mn"),
        (FALL_BACK, "d", ""),
        (ANY, ALL, "mnrs"),
        (ANY, "m", "m"),
        (ANY, "s", "s"),
        (Request(pool_id=id(POOLS["s"])), ALL, "s"),
        (Request(pool_id=id(POOLS["m"])), ALL, "m"),
        (Request(pool_id=id(POOLS["m"])), "n", ""),
    ],
)
def test_who_may_serve(request_: Request, hosts: str, found: str) -> None:
    assert "".join(host.address for host in eligible(topology(*hosts), request_)) == found


def test_a_demoted_pool_still_serves_those_who_ask_for_it() -> None:
    snapshot = topology("m").apply(Observation("m", 9, at=0, answer=REPLICA, pool=POOLS["m"]))
    assert eligible(snapshot, Request(pool_id=id(POOLS["m"]))) == snapshot.replicas
