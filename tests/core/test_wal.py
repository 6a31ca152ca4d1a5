"""Positions in the write-ahead log."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyscopg2.core.wal import WalPosition, end_of_record, parse_lsn

SYSTEM = 7412345678901234567

POSITIONS = st.builds(
    WalPosition,
    st.integers(1, 2**64 - 1),
    st.integers(1, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)


@given(POSITIONS)
def test_its_text_is_all_of_it_and_short(position: WalPosition) -> None:
    text = str(position)
    assert WalPosition.parse(text) == position
    assert len(text) <= 42
    assert set(text) <= set("0123456789abcdef.")


@pytest.mark.parametrize(
    "text",
    [
        *("", "1.1", "1.1.1.1", "0.1.1", "1.0.1", "1.1.-1", "1.1.00", " 1.1.1", "1.1.1\n", "1.1.G"),
        *(
            "1.1.A",
            "1/1/1",
            "1.1." + "f" * 17,
            "1." + "f" * 9 + ".1",
            "1.1.\N{FULLWIDTH DIGIT ONE}",
        ),
    ],
)
def test_any_other_text_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not the text of a WAL position$"):
        WalPosition.parse(text)


@pytest.mark.parametrize("text", [None, b"1.1.1", 1])
def test_what_is_no_text_is_refused(text: Any) -> None:
    with pytest.raises(TypeError, match="is a str, not"):
        WalPosition.parse(text)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ((0, 1, 1), ValueError),
        ((2**64, 1, 1), ValueError),
        ((1, 0, 1), ValueError),
        ((1, 2**32, 1), ValueError),
        ((1, 1, -1), ValueError),
        ((1, 1, 2**64), ValueError),
        ((1, 1, True), TypeError),
        ((1, "1", 1), TypeError),
        ((1, 1, 1.0), TypeError),
    ],
)
def test_values_that_can_not_be_are_refused(values: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        WalPosition(*values)


def test_on_one_timeline_of_one_system_they_are_in_order() -> None:
    first, second = WalPosition(SYSTEM, 3, 10), WalPosition(SYSTEM, 3, 11)
    assert first < second
    assert first <= second
    assert second > first
    assert second >= first
    assert first <= WalPosition(SYSTEM, 3, 10) >= first
    assert sorted([second, first]) == [first, second]
    assert len({first, second, WalPosition(SYSTEM, 3, 10)}) == 2


@pytest.mark.parametrize("other", [WalPosition(SYSTEM, 4, 1), WalPosition(1, 3, 1), "7.3.1", None])
def test_others_can_not_be_compared(other: Any) -> None:
    position = WalPosition(SYSTEM, 3, 1)
    assert position != other
    for compare in ("__lt__", "__le__", "__gt__", "__ge__"):
        assert getattr(position, compare)(other) is NotImplemented
    with pytest.raises(TypeError):
        assert position < other
    with pytest.raises(TypeError):
        assert position >= other


def test_it_is_frozen() -> None:
    position: Any = WalPosition(SYSTEM, 3, 1)
    with pytest.raises(FrozenInstanceError):
        position.lsn = 2


def test_the_later_one_is_the_higher_of_a_timeline_or_the_one_on_the_newer() -> None:
    old, low, high = (WalPosition(SYSTEM, *place) for place in ((2, 99), (3, 10), (3, 11)))
    assert low.merge(high) == high.merge(low) == high
    assert old.merge(low) == low.merge(old) == low
    assert low.merge(None) == low
    with pytest.raises(ValueError, match="different systems"):
        low.merge(WalPosition(1, 3, 12))


@given(st.lists(st.builds(WalPosition, st.just(SYSTEM), st.integers(1, 4), st.integers(0, 9))))
def test_the_order_of_merging_is_of_no_account(positions: list[WalPosition]) -> None:
    def merged(some: list[WalPosition]) -> WalPosition | None:
        result: WalPosition | None = None
        for position in some:
            result = position.merge(result)
        return result

    assert merged(positions) == merged(positions[::-1])


def test_an_lsn_is_read_as_bytes() -> None:
    assert parse_lsn("16/B374D848") == 0x16B374D848
    assert parse_lsn("0/0") == 0


SEGMENT = 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("insert", "end"),
    [
        (5 * SEGMENT + 40, 5 * SEGMENT),
        (5 * SEGMENT + 24, 5 * SEGMENT + 24 - 24),
        (5 * SEGMENT + 3 * 8192 + 24, 5 * SEGMENT + 3 * 8192),
        (5 * SEGMENT + 3 * 8192 + 40, 5 * SEGMENT + 3 * 8192 + 40),
        (5 * SEGMENT + 3 * 8192, 5 * SEGMENT + 3 * 8192),
        (5 * SEGMENT + 328, 5 * SEGMENT + 328),
    ],
)
def test_a_record_ends_before_the_header_of_a_page_that_is_empty(insert: int, end: int) -> None:
    assert end_of_record(insert, insert % SEGMENT, 8192) == end
