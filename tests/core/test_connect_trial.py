"""The events of a connect trial, one after another."""

import pytest

from pyscopg2.core.checkout.connect_trial import RETRY_GAP, TRUSTED_AFTER, ConnectTrial

FAILURE = OSError("refused")
LATE = 1000.0
"""When the first connect fails."""


def failed(size: int, in_use: int) -> ConnectTrial:
    trial = ConnectTrial(size)
    trial.connect_failed(in_use, LATE, FAILURE)
    return trial


def test_at_first_it_is_trusted() -> None:
    trial = ConnectTrial(10)
    assert (trial.limit, trial.suspended, trial.failure) == (10, False, None)
    assert not trial.connected(in_use=3)
    assert not trial.answered(in_use=3, now=LATE)
    assert trial.limit == 10


@pytest.mark.parametrize("in_use", [1, 4, 10])
def test_a_connect_that_failed_leaves_what_is_open(in_use: int) -> None:
    trial = failed(10, in_use)
    assert trial.limit == in_use - 1
    assert trial.suspended is (in_use == 1)
    assert trial.failure is FAILURE


def test_a_slow_connect_has_no_failure() -> None:
    trial = failed(10, in_use=3)
    trial.connect_slow(in_use=3, now=LATE + 1)
    assert (trial.limit, trial.failure) == (2, None)


def test_each_connect_that_succeeds_lets_one_more_try() -> None:
    trial = failed(3, in_use=1)
    for limit in (1, 2, 3):
        assert trial.connected(in_use=limit - 1)
        assert trial.limit == limit
    assert trial.failure is None
    assert not trial.connected(in_use=3)


def test_a_success_takes_no_slot_away() -> None:
    trial = failed(10, in_use=6)
    assert trial.connected(in_use=1)
    assert trial.limit == 5


def test_one_more_may_try_where_all_that_may_are_in_use_and_not_too_soon() -> None:
    trial = failed(10, in_use=3)
    later = LATE + RETRY_GAP
    assert not trial.acquired(in_use=2, now=later - 0.01)
    assert not trial.acquired(in_use=1, now=later)
    assert trial.acquired(in_use=2, now=later)
    assert trial.limit == 3
    assert not trial.acquired(in_use=3, now=later)
    assert trial.acquired(in_use=3, now=later + RETRY_GAP)
    assert trial.limit == 4


def test_a_good_check_lets_one_try_and_a_later_one_all() -> None:
    trial = failed(10, in_use=1)
    assert not trial.answered(in_use=0, now=LATE + RETRY_GAP / 2)
    assert trial.suspended
    tried_at = LATE + RETRY_GAP
    assert trial.answered(in_use=0, now=tried_at)
    assert (trial.limit, trial.failure) == (1, FAILURE)
    assert trial.answered(in_use=0, now=tried_at + RETRY_GAP)
    assert trial.limit == 1
    assert trial.answered(in_use=0, now=tried_at + TRUSTED_AFTER)
    assert (trial.limit, trial.failure) == (10, None)


def test_another_failure_begins_anew() -> None:
    trial = failed(10, in_use=5)
    trial.connected(in_use=4)
    trial.connect_failed(in_use=5, now=LATE + 1, failure=FAILURE)
    assert trial.limit == 4
    assert not trial.is_due(LATE + 1 + RETRY_GAP / 2)
    assert trial.is_due(LATE + 1 + RETRY_GAP)
