"""The budget of repeats, and how long they wait."""

import random

import pytest

from pyscopg2.core.attempts.backoff import backoff
from pyscopg2.core.attempts.budget import RATE, SHARE, WINDOW, Budget


def spend_all(budget: Budget, now: float) -> int:
    spent = 0
    while budget.spend(now):
        spent += 1
    return spent


def test_a_program_that_does_nothing_has_ten_a_second() -> None:
    budget = Budget()
    assert spend_all(budget, 1000.0) == RATE
    assert spend_all(budget, 1000.5) == RATE / 2
    assert spend_all(budget, 1060.0) == RATE  # they are not saved up for longer


def test_a_fifth_of_the_attempts_of_the_last_seconds() -> None:
    budget = Budget()
    for number in range(1000):
        budget.count(1000 + number / 200)  # for 5 s
    assert spend_all(budget, 1005.0) == 1000 * SHARE + RATE
    assert spend_all(budget, 1005.0) == 0


def test_attempts_are_forgotten_with_what_they_paid_for() -> None:
    budget = Budget()
    for _ in range(100):
        budget.count(1000.0)
    assert spend_all(budget, 1000.0) == 100 * SHARE + RATE
    for _ in range(50):
        budget.count(1005.0)
    assert spend_all(budget, 1000.0 + WINDOW - 0.1) == 50 * SHARE + RATE
    # The first ones are gone, and so are the repeats that they have paid for.
    assert spend_all(budget, 1000.0 + WINDOW) == 1
    assert spend_all(budget, 2000.0) == RATE


def test_never_more_than_the_share_and_the_rate() -> None:
    """Whatever comes when: within any window."""
    dice = random.Random(7)
    budget = Budget()
    now = 0.0
    attempts: list[float] = []
    repeats: list[float] = []
    for _ in range(20_000):
        now += dice.expovariate(300) if dice.random() < 0.999 else dice.uniform(0, 15)
        if dice.random() < 0.5:
            budget.count(now)
            attempts.append(now)
        elif budget.spend(now):
            repeats.append(now)
    assert len(repeats) > 1000
    assert len(repeats) <= SHARE * len(attempts) + RATE * (now + 1)


def test_backoff_is_none_at_first_and_then_anything_up_to_twice_as_much() -> None:
    assert backoff(0) == 0
    for repeats, most in ((1, 0.05), (2, 0.1), (3, 0.2), (6, 1.0), (7, 1.0), (10_000, 1.0)):
        waits = [backoff(repeats) for _ in range(300)]
        assert 0 <= min(waits) < 0.1 * most
        assert 0.9 * most < max(waits) <= most


def test_those_who_failed_together_do_not_come_back_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)
    assert backoff(3) == pytest.approx(0.1)
