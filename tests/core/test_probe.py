from collections.abc import Callable

import pytest
from tests.core.conftest import virtual

from pyscopg2.core.probe import PLAIN_QUERY, RICH_QUERY, Answer, ask, parse_plain, parse_rich
from pyscopg2.testing.fake_server import FakeError, FakeServer


@pytest.mark.parametrize(
    ("text", "answer", "writable"),
    [
        ("f off 0/3000148 1 42", Answer(False, False, 0x3000148, 1, 42), True),
        ("f on 16/B374D848 12 42", Answer(True, False, (0x16 << 32) + 0xB374D848, 12, 42), False),
        ("t on 0/0 - 42", Answer(True, True, 0, None, 42), False),
        ("t on - - 42", Answer(True, True, None, None, 42), False),
        ("t off - - 42", Answer(False, True, None, None, 42), False),
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
        "f off 0/3000148 1",
        "f off 0/3000148 1 42 more",
        "true off 0/0 1 42",
        "f no 0/0 1 42",
        "f off 0-0 1 42",
        "f off 0/x 1 42",
        "f off 0/0 one 42",
        "f off 0/0 1 -",
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

    async def fetch(self, query: str) -> object:
        self.queries.append(query)
        return self.server.answer(query)

    async def ask(self, *, rich: bool = True) -> Answer:
        return await ask(self.fetch, lambda exc: getattr(exc, "sqlstate", None), rich=rich)


@virtual
async def test_one_round_trip() -> None:
    asked = Asked(FakeServer())
    assert (await asked.ask()).rich
    assert asked.queries == [RICH_QUERY]


@pytest.mark.parametrize("sqlstate", ["42501", "42883", "0A000"])
def test_where_the_rich_form_is_refused_the_plain_one_is_asked(sqlstate: str) -> None:
    asked = Asked(FakeServer(refuse_rich_probe=sqlstate))

    @virtual
    async def main() -> None:
        assert await asked.ask() == Answer(read_only=False)
        assert await asked.ask(rich=False) == Answer(read_only=False)

    main()
    assert asked.queries == [RICH_QUERY, PLAIN_QUERY, PLAIN_QUERY]


@virtual
async def test_other_errors_pass_through() -> None:
    asked = Asked(FakeServer(refuse_rich_probe="57P01"))
    with pytest.raises(FakeError):
        await asked.ask()
    assert asked.queries == [RICH_QUERY]
