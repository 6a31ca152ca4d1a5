"""Causal sessions: what moves them on, and what their reads ask for."""

import asyncio
import contextlib
from contextvars import copy_context
from typing import Any

import pytest
from tests.core.conftest import Bench, break_one, in_use, make, now, out, start, virtual
from tests.core.test_bounded_reads import LATER, SYSTEM, commit, name_of, replay, waited

from pyscopg2.core.causal import CausalSession
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.topology.position_query import POSITION_QUERY, parse_position
from pyscopg2.core.wal import WalPosition
from pyscopg2.testing.fake import FakeAdapter, FakeConnection, FakeQuirks
from pyscopg2.testing.fake_server import FakeError, FakeServer

NOW = WalPosition(SYSTEM, 1, 0x3000148)


def questions(server: FakeServer) -> int:
    """How often the server was asked for its position."""
    return sum(entry.text == POSITION_QUERY for entry in server.log)


def writing(session: CausalSession) -> bool:
    """Asked anew: mypy takes it that what was asserted of a property holds from then on."""
    return session.is_writing


# The position


@pytest.mark.parametrize(
    ("answer", "position"),
    [
        ("42 0000000A 1/000000FF 255 8192", WalPosition(42, 10, 2**32 + 255)),
        ("42 00000001 0/01002018 8216 8192", WalPosition(42, 1, 0x1002000)),
        ("42 00000001 0/02000028 40 8192", WalPosition(42, 1, 0x2000000)),
        ("standby", None),
    ],
)
def test_what_servers_answer(answer: str, position: WalPosition | None) -> None:
    assert parse_position(answer) == position


@pytest.mark.parametrize(
    "answer", ["", "1", None, "42 1 0/0 0", "x 1 0/0 0 8192", "0 1 0/0 0 8192"]
)
def test_what_is_no_answer(answer: object) -> None:
    with pytest.raises(ValueError, match="not an answer to the position query"):
        parse_position(answer)


@virtual
async def test_the_position_of_a_connection() -> None:
    async with Bench() as bench:
        async with bench.manager.acquire_master() as connection:
            assert await bench.manager.wal_position(connection) == NOW
            commit(bench)
            assert await bench.manager.wal_position(connection) == LATER
        async with bench.manager.acquire_replica() as connection:
            with pytest.raises(ValueError, match="is a standby"):
                await bench.manager.wal_position(connection)


# Sessions


@virtual
async def test_a_read_sees_what_was_written_before() -> None:
    async with Bench(replicas=2, refresh_delay=30) as bench:
        with bench.manager.causal() as session:
            assert {await name_of(bench) for _ in range(20)} == {"db2", "db3"}
            async with bench.manager.acquire_master():
                commit(bench)
            assert session.position == LATER
            reading = start(name_of(bench, timeout=5))
            await asyncio.sleep(1)
            assert not reading.done()
            replay(bench, "db3")
            assert await reading == "db3"
            for _ in range(10):
                assert await name_of(bench) == "db3"
                async with bench.manager.acquire(read_only=True) as connection:
                    assert connection.server.name == "db3"
        assert {await name_of(bench) for _ in range(20)} == {"db2", "db3"}
        assert questions(bench["db1"]) == 1
        assert questions(bench["db2"]) + questions(bench["db3"]) == 0


@virtual
async def test_it_begins_where_it_is_told_to() -> None:
    async with Bench(replicas=2, refresh_delay=0.5) as bench:
        commit(bench)
        replay(bench, "db3")
        for after in (LATER, str(LATER)):
            with bench.manager.causal(after=after) as session:
                assert session.position == LATER
                assert {await name_of(bench) for _ in range(10)} == {"db3"}
        with pytest.raises(ValueError, match="not the text"):
            bench.manager.causal(after="nonsense")
        with pytest.raises(TypeError, match="after must be"):
            bench.manager.causal(after=5)  # type: ignore[arg-type] # as a caller without types


@virtual
async def test_a_release_moves_it_on_and_gives_back_once() -> None:
    async with Bench() as bench:
        with bench.manager.causal() as session:
            connection = await bench.manager.acquire_master()
            commit(bench)
            releasing = start(bench.manager.release(connection))
            await asyncio.sleep(0)
            with pytest.raises(ValueError, match="given back already"):
                await bench.manager.release(connection)
            await releasing
            assert session.position == LATER
            assert in_use(bench.manager) == 0


@virtual
async def test_a_block_that_raised_may_have_committed_before() -> None:
    async with Bench() as bench:
        with bench.manager.causal() as session:
            with pytest.raises(KeyError):
                async with bench.manager.acquire_master():
                    commit(bench)
                    raise KeyError
            assert session.position == LATER


@virtual
async def test_what_can_not_be_asked_for_is_covered_by_its_moment() -> None:
    async with Bench(replicas=1, refresh_delay=0.5) as bench:
        with bench.manager.causal() as session:
            with contextlib.suppress(Exception):
                async with bench.manager.acquire_master() as connection:
                    commit(bench)
                    break_one(connection)
            assert session.position is None
            reading = start(name_of(bench, timeout=20))
            await asyncio.sleep(5)
            assert not reading.done(), "the replica has not replayed it"
            replay(bench, "db2")
            began = now()
            assert await reading == "db2"
            assert now() - began < 0.2
            assert in_use(bench.manager) == 0


@virtual
async def test_a_commit_whose_outcome_nobody_knows_is_covered() -> None:
    quirks = FakeQuirks(commits_at_end=True)
    async with Bench(replicas=1, refresh_delay=0.5, quirks=quirks) as bench:
        with bench.manager.causal():
            with pytest.raises(ConnectionResetError):
                async with bench.manager.acquire_master() as connection:
                    await connection.execute("insert")
                    commit(bench)
                    break_one(connection)
            assert questions(bench["db1"]) == 0
            with pytest.raises(AcquireTimeoutError, match="not behind a write of its own"):
                await name_of(bench, timeout=2)
            replay(bench, "db2")
            assert await name_of(bench, timeout=2) == "db2"


class Pooler(FakeAdapter):
    """The connection to it stays, while it tells that the server is gone."""

    async def fetch_scalar(self, connection: FakeConnection, query: str, /) -> object:
        if query == POSITION_QUERY:
            raise FakeError.of("57P01")
        return await super().fetch_scalar(connection, query)


@virtual
async def test_where_the_question_meets_a_server_that_is_gone_the_host_is_checked() -> None:
    async with Bench(refresh_delay=30, adapter=Pooler) as bench:
        with bench.manager.causal():
            async with bench.manager.acquire_master():
                pass
        asked = bench["db1"].queries
        await asyncio.sleep(0.2)
        assert bench["db1"].queries == asked + 1


@virtual
async def test_where_another_server_answers_for_the_master_the_write_is_covered() -> None:
    """As where the master is demoted behind a proxy, which keeps its connections."""
    async with Bench(replicas=2, refresh_delay=0.2) as bench:
        with bench.manager.causal() as session:
            async with bench.manager.acquire_master():
                bench["db1"].in_recovery = True
                bench["db2"].promote()
                bench["db3"].timeline = bench["db2"].timeline
                bench["db2"].lsn = "0/3000200"
            assert session.position is None
            await bench.until_roles("replica master replica")
            bench["db1"].down()
            with pytest.raises(AcquireTimeoutError, match="not behind a write of its own"):
                await name_of(bench, timeout=2)
            replay(bench, "db3")
            assert await name_of(bench, timeout=2) == "db3"


@virtual
async def test_a_block_that_is_cancelled_asks_nothing_and_is_covered() -> None:
    async with Bench(replicas=1, refresh_delay=0.5) as bench:
        with bench.manager.causal() as session:

            async def write() -> None:
                async with bench.manager.acquire_master():
                    commit(bench)
                    await asyncio.sleep(100)

            writing = start(write())
            await asyncio.sleep(0.1)
            writing.cancel()
            await asyncio.wait([writing])
            assert writing.cancelled()
            assert questions(bench["db1"]) == 0
            assert in_use(bench.manager) == 0
            with pytest.raises(AcquireTimeoutError, match="not behind a write of its own"):
                await name_of(bench, timeout=2)
            replay(bench, "db2")
            assert await name_of(bench, timeout=2) == "db2"
            assert session.position is None


@pytest.mark.parametrize("how", ["block", "release"])
@virtual
async def test_cancelled_while_it_asks_it_is_given_back_and_covered(how: str) -> None:
    async with Bench(replicas=1, refresh_delay=0.5) as bench:
        with bench.manager.causal() as session:

            async def write() -> None:
                if how == "block":
                    async with bench.manager.acquire_master():
                        commit(bench)
                else:
                    connection = await bench.manager.acquire_master()
                    commit(bench)
                    await bench.manager.release(connection)

            writing = start(write())
            await bench.until(lambda: questions(bench["db1"]) == 1, within=1)
            writing.cancel()
            await asyncio.wait([writing])
            assert writing.cancelled()
            assert session.position is None
            await asyncio.sleep(0.1)
            assert in_use(bench.manager) == 0
            with pytest.raises(AcquireTimeoutError):
                await name_of(bench, timeout=2)


@pytest.mark.parametrize("how", ["block", "release"])
@virtual
async def test_a_master_that_freezes_while_it_is_asked_holds_nobody_up(how: str) -> None:
    async with Bench(replicas=1, refresh_timeout=0.5) as bench:
        with bench.manager.causal() as session:
            connection_to_come = bench.manager.acquire_master()
            began = 0.0
            if how == "block":
                async with connection_to_come:
                    bench["db1"].freeze()
                    began = now()
            else:
                connection = await connection_to_come
                bench["db1"].freeze()
                began = now()
                with contextlib.suppress(Exception):
                    await bench.manager.release(connection)
            assert now() - began < 1.5
            assert session.position is None
        assert out(bench.manager) == []
        bench["db1"].thaw()


@pytest.mark.parametrize("how", ["block", "release"])
@virtual
async def test_it_tells_while_a_connection_to_a_master_is_out(how: str) -> None:
    async with Bench(replicas=1) as bench:
        with bench.manager.causal() as outer, bench.manager.causal() as session:
            assert not writing(session)
            async with bench.manager.acquire_replica():
                assert not writing(session)
            if how == "block":
                with pytest.raises(KeyError):
                    async with bench.manager.acquire_master():
                        assert writing(session)
                        assert writing(outer)
                        async with bench.manager.acquire_master():
                            pass
                        assert writing(session)
                        raise KeyError
            else:
                connection = await bench.manager.acquire_master()
                assert writing(session)
                assert writing(outer)
                releasing = start(bench.manager.release(connection))
                await bench.until(lambda: questions(bench["db1"]) == 1, within=1)
                assert writing(session), "the position is not known yet"
                await releasing
            assert session.position == NOW
            assert not writing(session)
            assert not writing(outer)


@virtual
async def test_what_two_tasks_give_back_at_once_ends_one_write() -> None:
    async with Bench(replicas=1) as bench:
        with bench.manager.causal() as session:
            block = bench.manager.acquire_master()
            connection = await block.__aenter__()
            ending = start(block.__aexit__(None, None, None))
            await bench.until(lambda: questions(bench["db1"]) == 1, within=1)
            with contextlib.suppress(FakeError):
                await bench.manager.release(connection)
            with contextlib.suppress(FakeError):
                await ending
            assert not writing(session)
            async with bench.manager.acquire_master():
                assert writing(session)
            assert in_use(bench.manager) == 0


@virtual
async def test_it_writes_no_more_however_its_connection_came_back() -> None:
    async with Bench(replicas=1, refresh_delay=0.2) as bench:
        with bench.manager.causal() as session:
            # Given back within its block, as some helpers do.
            async with bench.manager.acquire_master() as connection:
                await bench.manager.release(connection)
                assert not writing(session)
            assert not writing(session)
            # Nobody is served.
            held = await bench.drain()
            with pytest.raises(AcquireTimeoutError):
                await bench.manager.acquire_master(timeout=0.1)
            for connection in held:
                assert writing(session)
                await bench.manager.release(connection)
            assert not writing(session)
            # Terminated meanwhile: in a block, and awaited.
            connection = await bench.manager.acquire_master()
            async with bench.manager.acquire_master():
                bench["db2"].promote()
                await bench.until(lambda: bench.role("db1") == "superseded", within=2)
                assert writing(session)
            await bench.manager.release(connection)
            assert not writing(session)


@pytest.mark.parametrize("how", ["block", "release"])
@virtual
async def test_terminated_meanwhile_it_is_covered(how: str) -> None:
    async with Bench(replicas=2, refresh_delay=0.2) as bench:

        async def fail_over() -> None:
            bench["db2"].promote()
            bench["db3"].timeline = bench["db2"].timeline
            bench["db2"].lsn = "0/3000200"
            await bench.until(lambda: bench.role("db1") == "superseded", within=2)

        with bench.manager.causal() as session:
            if how == "block":
                async with bench.manager.acquire_master():
                    await fail_over()
            else:
                connection = await bench.manager.acquire_master()
                await fail_over()
                await bench.manager.release(connection)
            assert session.position is None
            with pytest.raises(AcquireTimeoutError, match="not behind a write of its own"):
                await name_of(bench, timeout=2)
            replay(bench, "db3")
            assert await name_of(bench, timeout=2) == "db3"


@virtual
async def test_tasks_that_start_within_share_it() -> None:
    async with Bench(replicas=2, refresh_delay=0.5) as bench:

        async def write() -> None:
            async with bench.manager.acquire_master():
                commit(bench)

        with bench.manager.causal() as session:
            await asyncio.gather(write(), start(asyncio.sleep(0)))
            assert session.position == LATER
            replay(bench, "db3")
            served = await asyncio.gather(*(name_of(bench) for _ in range(10)))
            assert set(served) == {"db3"}


@virtual
async def test_one_within_another_tells_it_what_was_written() -> None:
    async with Bench() as bench:
        with bench.manager.causal(after=NOW) as outer:
            with bench.manager.causal() as inner:
                assert inner.position == NOW
                async with bench.manager.acquire_master():
                    commit(bench)
                assert inner.position == LATER
            assert outer.position == LATER


@virtual
async def test_sessions_are_of_one_manager() -> None:
    async with Bench() as bench, Bench() as other:
        with bench.manager.causal() as session, other.manager.causal() as others:
            async with bench.manager.acquire_master():
                pass
            assert (session.position, others.position) == (NOW, None)
            async with other.manager.acquire_master():
                pass
            assert others.position == NOW


@virtual
async def test_a_position_of_a_system_that_was_replaced_is_dropped() -> None:
    async with Bench(refresh_delay=0.5) as bench:
        with bench.manager.causal(after=WalPosition(43, 1, 1)) as session:
            assert await name_of(bench) == "db2"
            assert await name_of(bench, after=NOW) == "db2"
            async with bench.manager.acquire_master():
                commit(bench)
            assert session.position == LATER


@virtual
async def test_a_read_that_waits_for_the_hosts_drops_such_a_position_too() -> None:
    async with Bench(ready=False) as bench:
        with bench.manager.causal(after=WalPosition(43, 1, 1)):
            assert await name_of(bench, timeout=5) == "db2"
        assert now() < 1


def test_what_was_written_in_one_system_is_not_forgotten_for_another() -> None:
    outer = CausalSession(NOW, None)
    session = CausalSession(None, outer)
    foreign = WalPosition(SYSTEM + 1, 1, 100)
    session.move(foreign)
    for each in (outer, session):
        assert each.position == each.position_in(None) == foreign
        assert each.position_in(SYSTEM) == NOW
        assert each.position_in(SYSTEM + 2) is None
        assert each.positions == (NOW, foreign)
    assert CausalSession(None, session).positions == (NOW, foreign)
    for system in range(100, 110):
        session.move(WalPosition(system, 1, 1))
    assert [each.system_identifier for each in session.positions] == [106, 107, 108, 109]


@virtual
async def test_a_write_to_a_foreign_host_takes_nothing_from_what_reads_wait_for() -> None:
    async with Bench(replicas=1) as bench:
        with bench.manager.causal() as session:
            async with bench.manager.acquire_master():
                commit(bench)
            written = session.position
            session.move(WalPosition(SYSTEM + 1, 1, 1))
            reading = start(bench.manager.acquire_replica(timeout=5))
            await asyncio.sleep(1)
            assert not reading.done()
            replay(bench, "db2")
            await bench.manager.release(await reading)
            assert session.position_in(SYSTEM) == written


@virtual
async def test_a_system_that_comes_to_count_while_a_read_waits_has_what_was_written_there() -> None:
    """It was written to a host that was another cluster's then; most hosts are of that one now."""
    written = WalPosition(SYSTEM + 1, 1, LATER.lsn)
    async with Bench(replicas=1) as bench:
        with bench.manager.causal() as session:
            session.move(written)
            bench["db2"].down()
            await bench.until_roles("master unavailable")
            reading = start(bench.manager.acquire_replica(timeout=20))
            for name in ("db1", "db2"):
                bench[name].system_identifier = SYSTEM + 1
            bench["db1"].restart()
            bench["db2"].up()
            await bench.until_roles("master replica", 5)
            await asyncio.sleep(1)
            # The replica has not replayed so far.
            assert not reading.done()
            commit(bench)
            replay(bench, "db2")
            await bench.manager.release(await reading)


@virtual
async def test_a_position_that_is_named_counts_before_the_hosts_are_known() -> None:
    """That of the session is of another system, which nobody has told yet."""
    async with Bench(replicas=1, ready=False) as bench:
        with bench.manager.causal(after=WalPosition(SYSTEM + 1, 1, 1)):
            assert await name_of(bench, after=NOW, timeout=5) == "db2"


@virtual
async def test_of_a_sessions_position_and_a_reads_own_the_later_counts() -> None:
    async with Bench(replicas=2, refresh_delay=0.5) as bench:
        commit(bench)
        replay(bench, "db3")
        await asyncio.sleep(1)
        for session, own in ((NOW, LATER), (LATER, NOW)):
            with bench.manager.causal(after=session):
                assert {await name_of(bench, after=own) for _ in range(10)} == {"db3"}


@virtual
async def test_what_no_position_is_known_of_has_the_master_asked() -> None:
    async with Bench(replicas=1, refresh_delay=30) as bench:
        with bench.manager.causal():

            async def write() -> None:
                async with bench.manager.acquire_master():
                    commit(bench)
                    await asyncio.sleep(100)

            writing = start(write())
            await asyncio.sleep(10)
            writing.cancel()
            await asyncio.wait([writing])
            replay(bench, "db2")
            began = now()
            assert await name_of(bench, timeout=20) == "db2"
            assert now() - began < 0.2


@virtual
async def test_pools_of_replicas_move_nothing() -> None:
    async with Bench() as bench:
        with bench.manager.causal() as session:
            async with bench.manager.acquire_from_pool(bench.pool("db2")):
                pass
            assert session.position is None
            assert await waited(bench) == 0
            async with bench.manager.acquire_from_pool(bench.pool("db1")):
                commit(bench)
            assert session.position == LATER


@virtual
async def test_outside_of_a_session_nothing_is_asked() -> None:
    async with Bench() as bench:
        with bench.manager.causal():
            pass
        async with bench.manager.acquire_master():
            pass
        connection = await bench.manager.acquire_master()
        await bench.manager.release(connection)
        assert questions(bench["db1"]) == 0


@virtual
async def test_a_scope_is_entered_once_and_left_in_any_context() -> None:
    manager = make()
    scope = manager.causal()
    with pytest.raises(RuntimeError, match="has not been entered"):
        scope.__exit__(None, None, None)
    copy_context().run(scope.__enter__)
    with pytest.raises(RuntimeError, match="has been entered before"):
        scope.__enter__()
    scope.__exit__(None, None, None)


def test_a_session_never_goes_back() -> None:
    session = CausalSession(None, None)
    session.move(LATER)
    session.move(NOW)
    assert session.position == LATER
    session.move(WalPosition(SYSTEM, 2, 1))
    assert session.position == WalPosition(SYSTEM, 2, 1)
    session.move_to(5)
    session.move_to(3)
    assert session.since == 5
    session.move(WalPosition(44, 1, 7))
    assert session.position == WalPosition(44, 1, 7)


def test_moments_are_those_of_the_sessions_around_it_too() -> None:
    outer = CausalSession(None, None)
    outer.move_to(2)
    inner = CausalSession(None, outer)
    assert inner.since == 2
    inner.move_to(5)
    assert outer.since == 5


@virtual
async def test_a_cancellation_is_not_hidden_by_the_release_of_a_connection_that_was_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Bench() as bench:
        with bench.manager.causal():
            connection = await bench.manager.acquire_master()
            right = bench.adapter.release_to_pool

            async def broken(*arguments: Any, **kwargs: Any) -> None:
                await right(*arguments, **kwargs)
                raise OSError

            monkeypatch.setattr(bench.adapter, "release_to_pool", broken)
            releasing = start(bench.manager.release(connection))
            await bench.until(lambda: questions(bench["db1"]) == 1, within=1)
            releasing.cancel()
            await asyncio.wait([releasing])
            assert releasing.cancelled()
            assert in_use(bench.manager) == 0
