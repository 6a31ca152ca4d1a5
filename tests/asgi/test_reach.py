"""How far writes reach: what tokens say together, and what a process knows of its own."""

import pytest
from tests.asgi.support import Site
from tests.support.virtual import virtual

from pyscopg2.asgi.reach import NOTHING, Reach, reach_of, system_of
from pyscopg2.core.causal import CausalSession
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.wal import WalPosition

EARLIER, LATER = WalPosition(42, 1, 100), WalPosition(42, 1, 200)
NEWER = WalPosition(42, 2, 50)
FOREIGN = WalPosition(43, 9, 900)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (NOTHING, NOTHING, NOTHING),
        (Reach(EARLIER), NOTHING, Reach(EARLIER)),
        (Reach(EARLIER), Reach(LATER), Reach(LATER)),
        (Reach(LATER), Reach(NEWER), Reach(NEWER)),
        (Reach(None, True), Reach(LATER), Reach(LATER, True)),
        (Reach(EARLIER, True), Reach(LATER, True), Reach(LATER, True)),
    ],
)
def test_what_two_have_to_see(one: Reach, other: Reach, both: Reach) -> None:
    assert one.merge(other) == other.merge(one) == both


def test_of_two_systems_the_first_counts() -> None:
    assert Reach(FOREIGN).merge(Reach(LATER)) == Reach(FOREIGN)
    assert Reach(LATER).merge(Reach(FOREIGN)) == Reach(LATER)


@virtual
async def test_a_moment_is_covered_by_what_the_master_told_later() -> None:
    async with Site() as site:
        manager = await site.manager(refresh_delay=30)
        assert system_of(manager.topology) == site.position.system_identifier
        session = CausalSession(None, None)
        assert reach_of(session, manager.topology) == NOTHING
        session.move_to(stopwatch.clock())
        site.commit()
        assert reach_of(session, manager.topology) == Reach(None, waits=True)
        await manager.wait_next_pool_check()
        assert reach_of(session, manager.topology) == Reach(site.position)
        ahead = WalPosition(site.position.system_identifier, 1, 2**40)
        session.move(ahead)
        assert reach_of(session, manager.topology) == Reach(ahead)


@virtual
async def test_what_a_master_told_that_is_one_no_more_covers_nothing() -> None:
    async with Site() as site:
        manager = await site.manager()
        session = CausalSession(None, None)
        session.move_to(0)
        assert reach_of(session, manager.topology) == Reach(site.position)
        newer = WalPosition(site.position.system_identifier, 2, 1)
        session.move(newer)
        assert reach_of(session, manager.topology) == Reach(newer, waits=True)


@virtual
async def test_the_master_of_another_system_counts_from_its_first_answer() -> None:
    async with Site() as site:
        manager = await site.manager()
        session = CausalSession(FOREIGN, None)
        session.move_to(0)
        assert reach_of(session, manager.topology) == Reach(site.position)


@virtual
async def test_without_a_master_nothing_covers_a_moment() -> None:
    async with Site() as site:
        manager = await site.manager()
        session = CausalSession(EARLIER, None)
        session.move_to(0)
        await manager.terminate()
        manager = type(manager)(site.network.dsn)
        assert system_of(manager.topology) is None
        assert reach_of(session, manager.topology) == Reach(EARLIER, waits=True)
