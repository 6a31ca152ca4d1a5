from collections.abc import Callable

import pytest
from tests.core.conftest import virtual

from pyscopg2.core.topology.role_query import (
    ASK_AGAIN,
    PLAIN_QUERY,
    RICH_QUERY,
    Answer,
    RoleQuery,
    WalState,
    parse_plain,
    parse_rich,
)
from pyscopg2.testing.fake_server import FakeError, FakeServer

WAL = "0/3000148,328,8192,0/3000100,-5,200ms"
"""What a primary tells of its log."""

TOLD = WalState(0x3000148, 0x3000100, -5, 3 * 0.2)


@pytest.mark.parametrize(
    ("text", "answer", "writable"),
    [
        (
            f"f off 0/3000148 1 42 7 - {WAL}",
            Answer(False, False, 0x3000148, 1, 42, 7, wal=TOLD),
            True,
        ),
        (
            f"f server 16/B374D848 12 42 7 - {WAL}",
            Answer(True, False, (0x16 << 32) + 0xB374D848, 12, 42, 7, wal=TOLD),
            False,
        ),
        (
            f"f login 0/0 12 42 7 - {WAL}",
            Answer(False, False, 0, 12, 42, 7, None, True, TOLD),
            True,
        ),
        ("t off 0/0 3 42 7 - -", Answer(True, True, 0, 3, 42, 7), False),
        ("t off 0/0 3 42 7 - 4", Answer(True, True, 0, 3, 42, 7, receives=4), False),
        (
            "t off - 3 42 7 10.0.0.3:5432 -",
            Answer(True, True, None, 3, 42, 7, "10.0.0.3:5432"),
            False,
        ),
        ("t off - 3 42 7 ::1:5432 -", Answer(True, True, None, 3, 42, 7, "::1:5432"), False),
        ("t off - 3 42 7 - -", Answer(True, True, None, 3, 42, 7), False),
    ],
)
def test_rich_answers(text: str, answer: Answer, writable: bool) -> None:
    assert parse_rich(text) == answer
    assert answer.writable is writable
    assert answer.rich


@pytest.mark.parametrize(("text", "writable"), [("off", True), ("on", False)])
def test_plain_answers(text: str, writable: bool) -> None:
    answer = parse_plain(text)
    assert answer.writable is writable
    assert not answer.rich
    assert answer.in_recovery is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        1,
        "",
        "f off 0/3000148 1 42",
        "f off 0/3000148 1 42 7 -",
        f"f off 0/3000148 1 42 7 - {WAL} more",
        f"true off 0/0 1 42 7 - {WAL}",
        f"f on 0/0 1 42 7 - {WAL}",
        f"f off 0-0 1 42 7 - {WAL}",
        f"f off 0/x 1 42 7 - {WAL}",
        f"f off 0/0 one 42 7 - {WAL}",
        f"f off 0/0 1 - 7 - {WAL}",
        f"f off 0/0 1 42 7 db:5432 {WAL}",
        "f off 0/0 1 42 7 - -",
        f"t off 0/0 1 42 7 - {WAL}",
        f"f off 0/0 1 42 7 - {WAL},1",
        f"f off 0/0 1 42 7 - {WAL.replace('200ms', '1min')}",
        f"f off 0/0 1 42 7 - {WAL.replace('-5', 'five')}",
    ],
)
@pytest.mark.parametrize("parse", [parse_rich, parse_plain])
def test_nonsense_is_a_value_error(parse: Callable[[object], Answer], text: object) -> None:
    with pytest.raises(ValueError, match=r"not an answer|expected 'on' or 'off'"):
        parse(text)


def test_long_nonsense_is_not_repeated_at_length() -> None:
    with pytest.raises(ValueError) as error:
        parse_rich("x" * 10_000)
    assert len(str(error.value)) < 200


class Asked:
    """A server that notes what it is asked."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.queries: list[str] = []
        self._role_query = RoleQuery(self.fetch, lambda exc: getattr(exc, "sqlstate", None))

    async def fetch(self, query: str) -> object:
        self.queries.append(query)
        return self.server.answer(query)

    async def ask(self, now: float = 0.0) -> tuple[Answer, list[str]]:
        """The answer, and what was asked for it."""
        self.queries.clear()
        return await self._role_query.ask(now), list(self.queries)


@pytest.mark.parametrize(("shown", "seconds"), [("1ms", 0.003), ("200ms", 0.6), ("2s", 6.0)])
def test_how_long_an_asynchronous_commit_may_take(shown: str, seconds: float) -> None:
    answer = parse_rich(f"f off 0/0 1 42 7 - {WAL.replace('200ms', shown)}")
    assert answer.wal is not None
    assert answer.wal.flush_delay == pytest.approx(seconds)


@virtual
async def test_one_round_trip() -> None:
    answer, queries = await Asked(FakeServer()).ask()
    assert answer.rich
    assert queries == [RICH_QUERY]


@pytest.mark.parametrize("sqlstate", ["42501", "42883", "0A000"])
def test_where_the_rich_form_is_refused_the_plain_one_is_asked_for_a_while(sqlstate: str) -> None:
    @virtual
    async def main() -> None:
        asked = Asked(FakeServer(refuse_rich_probe=sqlstate))
        plain = Answer(read_only=False)
        assert await asked.ask() == (plain, [RICH_QUERY, PLAIN_QUERY])
        assert await asked.ask(1) == (plain, [PLAIN_QUERY])
        assert await asked.ask(ASK_AGAIN) == (plain, [RICH_QUERY, PLAIN_QUERY])
        assert await asked.ask(ASK_AGAIN + 1) == (plain, [PLAIN_QUERY])
        # The privilege was granted.
        asked.server.refuse_rich_probe = None
        assert not (await asked.ask(ASK_AGAIN + 2))[0].rich
        answer, queries = await asked.ask(2 * ASK_AGAIN)
        assert answer.rich
        assert queries == [RICH_QUERY]

    main()


@virtual
async def test_what_a_standby_refuses_is_asked_again_when_it_is_promoted() -> None:
    asked = Asked(FakeServer(in_recovery=True, refuse_rich_probe="0A000"))
    await asked.ask()
    asked.server.promote()
    asked.server.refuse_rich_probe = None
    answer, queries = await asked.ask(1)
    assert (answer.rich, answer.timeline) == (True, 2)
    assert queries == [PLAIN_QUERY, RICH_QUERY]
    assert (await asked.ask(2))[1] == [RICH_QUERY]


@virtual
async def test_a_refusal_that_passes_is_not_remembered() -> None:
    """As Aurora's of functions of the WAL."""
    asked = Asked(FakeServer(refuse_rich_probe="55000"))
    for _ in range(2):
        assert await asked.ask() == (Answer(read_only=False), [RICH_QUERY, PLAIN_QUERY])


@virtual
async def test_other_errors_pass_through() -> None:
    asked = Asked(FakeServer(refuse_rich_probe="57P01"))
    with pytest.raises(FakeError):
        await asked.ask()
    assert asked.queries == [RICH_QUERY]
