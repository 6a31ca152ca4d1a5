from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyscopg2.core.timing.stopwatch import Stopwatch


def test_no_median_before_the_first_duration() -> None:
    assert Stopwatch().median is None


@given(
    st.lists(st.floats(min_value=0, max_value=1e3), min_size=1, max_size=40),
    st.integers(min_value=1, max_value=12),
)
def test_the_median_of_the_last_ones(durations: list[float], window: int) -> None:
    stopwatch = Stopwatch(window)
    for duration in durations:
        stopwatch.add(duration)
    assert stopwatch.median == pytest.approx(median(durations[-window:]))


def test_equal_durations_leave_one_at_a_time() -> None:
    stopwatch = Stopwatch(2)
    for duration in (1, 1, 1, 5):
        stopwatch.add(duration)
    assert stopwatch.median == 3


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_holds_at_least_one(window: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Stopwatch(window)
