"""A COMMIT whose answer is lost: what is found out of it, and what can't be."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.conftest import Bench, in_use, start, virtual

from pyscopg2.core.attempts.evidence import (
    CONFIRMATION_QUERY,
    EVIDENCE_QUERY,
    Evidence,
    Finding,
    Life,
    find,
    parse_evidence,
    status_query,
)
from pyscopg2.core.errors import CommitUnknown
from pyscopg2.testing.fake import FakeConnection
from pyscopg2.testing.fake_server import FakeError, FakeServer

LIFE = Life(42, 3, 1000, 2000)
BEFORE = Evidence(756, LIFE)


def answer(
    status: str, system: int = 42, timeline: int = 3, start: int = 1000, since: int = 2000
) -> str:
    return f"{status} {system} {timeline} {start} {since}"


@pytest.mark.parametrize(
    ("said", "finding"),
    [
        # The same life of the same server.
        (answer("committed"), Finding.COMMITTED),
        (answer("aborted"), Finding.NOT_COMMITTED),
        (answer("in-progress"), Finding.UNDER_WAY),
        (answer("-"), Finding.UNKNOWN),  # too long ago
        (answer("nonsense"), Finding.UNKNOWN),
        # After a restart, a crash, a promotion: the number may be another's.
        (answer("committed", start=1001), Finding.UNKNOWN),
        (answer("committed", since=2001), Finding.UNKNOWN),
        (answer("committed", timeline=4), Finding.UNKNOWN),
        # But not where ours would be there, too.
        (answer("aborted", start=1001), Finding.NOT_COMMITTED),
        (answer("in-progress", since=2001), Finding.NOT_COMMITTED),
        (answer("in-progress", timeline=4, start=7, since=8), Finding.NOT_COMMITTED),
        (answer("-", timeline=4), Finding.UNKNOWN),
        # Of another history.
        (answer("aborted", timeline=2), Finding.UNKNOWN),
        (answer("aborted", system=43), Finding.UNKNOWN),
        (answer("committed", system=43), Finding.UNKNOWN),
        ("1", Finding.UNKNOWN),
        (None, Finding.UNKNOWN),
    ],
)
def test_what_an_answer_says(said: object, finding: Finding) -> None:
    assert find(BEFORE, said) is finding


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("756 42 3 1000 2000", BEFORE),
        ("- 42 3 1000 2000", Evidence(None, LIFE)),
        ("756 42 3 1000", None),
        ("", None),
        (None, None),
        (1, None),
    ],
)
def test_evidence(text: object, evidence: Evidence | None) -> None:
    assert parse_evidence(text) == evidence


@pytest.mark.parametrize("code", ["57P01", "42501"])
@virtual
async def test_one_that_is_done_is_confirmed_by_another_commit(code: str) -> None:
    """It may have waited for a replica that never got it."""
    async with Bench() as bench:
        server = bench["db1"]
        server.commits_unheard = 1
        server.answers[CONFIRMATION_QUERY] = FakeError.of(code)
        writing = start(write(bench))
        await asyncio.sleep(1)
        if code == "57P01":
            assert not writing.done(), "not while it is not confirmed"
            assert asked(server, status_query(700)) > 1, "it is asked for anew each time"
            del server.answers[CONFIRMATION_QUERY]
            assert await writing == 1
        else:
            with pytest.raises(CommitUnknown, match="was asked, and failed: FakeError: permission"):
                await writing


@virtual
async def test_one_that_was_found_stays_found_while_the_connection_goes_back() -> None:
    async with Bench() as bench:
        server = bench["db1"]
        server.commits_unheard = 1
        writing = start(write(bench))
        await bench.until(lambda: asked(server, CONFIRMATION_QUERY) > 0, within=1)
        await asyncio.sleep(server.latency)
        server.freeze()
        assert await writing == 1


@virtual
async def test_one_that_no_replica_confirms_in_time() -> None:
    async with Bench() as bench:
        server = bench["db1"]
        server.commits_unheard = 1
        server.latency = 0.05
        writing = start(write(bench, timeout=2))
        await bench.until(lambda: asked(server, CONFIRMATION_QUERY) > 0, within=1)
        server.freeze()
        with pytest.raises(CommitUnknown, match="no replica has confirmed"):
            await writing


# In attempts


async def write(bench: Bench, *, timeout: float = 5, **given: Any) -> int:
    """Insert a row; how many blocks that took."""
    count = 0
    async for attempt in bench.manager.attempts(timeout=timeout, **given):
        async with attempt as connection:
            count += 1
            await connection.execute("insert 1")
    return count


def asked(server: FakeServer, query: str = EVIDENCE_QUERY) -> int:
    return sum(entry.text == query for entry in server.log)


def lose_commits(
    monkeypatch: pytest.MonkeyPatch, then: Callable[[FakeConnection], object], count: int = 1
) -> None:
    """The next COMMITs do not arrive: their connection breaks. ``then`` is called with it."""
    commit = FakeConnection.commit

    async def lose(self: FakeConnection) -> None:
        nonlocal count
        if not count:
            return await commit(self)
        count -= 1
        then(self)
        self.terminate()
        raise ConnectionResetError("reset")

    monkeypatch.setattr(FakeConnection, "commit", lose)


@virtual
async def test_one_that_is_done_is_not_run_once_more() -> None:
    async with Bench() as bench:
        bench["db1"].commits_unheard = 1
        assert await write(bench) == 1
        assert bench["db1"].writes == ["insert 1"]
        assert asked(bench["db1"], status_query(700)) == 1


@virtual
async def test_one_that_did_not_arrive_is_run_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bench() as bench:
        lose_commits(monkeypatch, lambda _: None)
        assert await write(bench) == 2
        assert bench["db1"].writes == ["insert 1"]


@virtual
async def test_one_that_is_under_way_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bench() as bench:
        server = bench["db1"]
        transactions = server.transactions

        def stay(_: FakeConnection) -> None:
            # The server goes on with it, whatever has become of the client.
            asyncio.get_running_loop().call_soon(transactions.__setitem__, 700, "in progress")
            asyncio.get_running_loop().call_later(1, transactions.__setitem__, 700, "committed")

        lose_commits(monkeypatch, stay)
        assert await write(bench) == 1
        assert asked(server, status_query(700)) > 2


@virtual
async def test_one_that_stays_under_way_until_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bench() as bench:
        transactions = bench["db1"].transactions

        def stay(_: FakeConnection) -> None:
            asyncio.get_running_loop().call_soon(transactions.__setitem__, 700, "in progress")

        lose_commits(monkeypatch, stay)
        with pytest.raises(CommitUnknown, match=r"transaction 700 .* still in progress") as raised:
            await write(bench)
        assert isinstance(raised.value.__cause__, ConnectionResetError)
        assert in_use(bench.manager) == 0


@pytest.mark.parametrize("what", ["crash", "restart", "promotion"])
@virtual
async def test_a_number_that_may_be_anothers_by_now(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Bench() as bench:
        one, two = bench["db1"], bench["db2"]

        def fail(_: FakeConnection) -> None:
            if what == "crash":
                one.counts_since += 1
            elif what == "restart":
                one.started_at += 1000
            else:
                bench.network.failover()
            for server in (one, two):
                # Ours, or somebody else's who got the same number.
                loop = asyncio.get_running_loop()
                loop.call_soon(server.transactions.__setitem__, 700, "committed")

        lose_commits(monkeypatch, fail)
        with pytest.raises(CommitUnknown, match="a crash, a restart or a promotion"):
            await write(bench)


@virtual
async def test_a_new_master_that_does_not_have_it_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bench() as bench:
        lose_commits(monkeypatch, lambda _: bench.network.failover())
        assert await write(bench) == 2
        assert bench["db2"].writes == ["insert 1"]


@virtual
async def test_nobody_to_be_asked() -> None:
    async with Bench(replicas=0) as bench:
        server = bench["db1"]

        async def lose() -> None:
            with pytest.raises(CommitUnknown, match=r"nobody was there to be asked|was asked, and"):
                await write(bench, timeout=2)

        server.commits_unheard = 1
        losing = start(lose())
        while server.commits_unheard:
            await asyncio.sleep(0.0005)
        server.down()
        await losing


@virtual
async def test_a_block_that_wrote_nothing_needs_no_answer() -> None:
    async with Bench() as bench:
        bench["db1"].commits_unheard = 1
        count = 0
        async for attempt in bench.manager.attempts():
            async with attempt as connection:
                count += 1
                await connection.execute("select")
        assert count == 2
        assert bench["db1"].transactions == {}


@virtual
async def test_servers_that_do_not_tell() -> None:
    async with Bench() as bench:
        server = bench["db1"]
        server.refuse_evidence = "42501"
        assert await write(bench) == 1
        assert await write(bench) == 1
        assert asked(server) == 1, "a refusal within a transaction would cost it"
        server.commits_unheard = 1
        with pytest.raises(CommitUnknown, match="the server does not tell"):
            await write(bench)


@virtual
async def test_idempotent_blocks_ask_nothing_and_are_run_once_more() -> None:
    async with Bench() as bench:
        bench["db1"].commits_unheard = 1
        assert await write(bench, idempotent=True) == 2
        assert bench["db1"].writes == ["insert 1", "insert 1"]
        assert asked(bench["db1"]) == 0


@pytest.mark.parametrize(("code", "blocks"), [("40001", 2), ("23505", 0)])
@virtual
async def test_a_commit_that_the_server_refuses_is_an_error_of_the_block(
    code: str, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Bench() as bench:
        refused = False
        commit = FakeConnection.commit

        async def refuse(self: FakeConnection) -> None:
            nonlocal refused
            if refused:
                return await commit(self)
            refused = True
            await self.rollback()
            raise FakeError.of(code)

        monkeypatch.setattr(FakeConnection, "commit", refuse)
        if blocks:
            assert await write(bench) == blocks
        else:
            with pytest.raises(FakeError):
                await write(bench)
        assert asked(bench["db1"], status_query(700)) == 0


@virtual
async def test_a_connection_that_fails_on_its_way_back_is_no_error_of_a_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Bench() as bench:
        commit = FakeConnection.commit

        async def break_after(self: FakeConnection) -> None:
            await commit(self)
            bench["db1"].break_connections()

        bench.quirks.notices_breaks = False
        monkeypatch.setattr(FakeConnection, "commit", break_after)
        assert await write(bench) == 1
        assert bench["db1"].writes == ["insert 1"]
        assert asked(bench["db1"], status_query(700)) == 0, "there is nothing to be found out"
