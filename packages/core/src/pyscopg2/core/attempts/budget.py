"""How many repeats a manager allows, so that trouble is not made worse by those who repeat."""

from collections import deque

WINDOW = 10
"""Seconds that an attempt counts for."""

SHARE = 0.2
"""Repeats for each attempt of the window."""

RATE = 10.0
"""Repeats a second beyond that, saved up for one second: for a program that does little."""


class Budget:
    """A share of the attempts of the last seconds, and a few more.

    As in Finagle's `RetryBudget`. It costs each attempt the same, however many there are.
    """

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque([(0, 0)] * WINDOW, WINDOW)
        """Of each second of the window: attempts, and the repeats that they paid for."""
        self._second = 0
        self._attempts = 0
        self._repeats = 0
        """In the whole window."""
        self._spare = RATE
        self._spare_at = 0.0

    def count(self, now: float) -> None:
        """An attempt begins, which is no repeat. ``now``: seconds, on any clock."""
        self._move_on(now)
        self._add(1, 0)

    def spend(self, now: float) -> bool:
        """Whether one more repeat is allowed now; it is counted then."""
        self._move_on(now)
        if self._repeats + 1 <= self._attempts * SHARE:
            self._add(0, 1)
            return True
        self._spare = min(RATE, self._spare + (now - self._spare_at) * RATE)
        self._spare_at = now
        if self._spare < 1:
            return False
        self._spare -= 1
        return True

    def _add(self, attempts: int, repeats: int) -> None:
        before = self._seconds.pop()
        self._seconds.append((before[0] + attempts, before[1] + repeats))
        self._attempts += attempts
        self._repeats += repeats

    def _move_on(self, now: float) -> None:
        """Forget what is older than the window."""
        second = int(now)
        for _ in range(min(WINDOW, second - self._second)):
            attempts, repeats = self._seconds[0]
            self._attempts -= attempts
            self._repeats -= repeats
            self._seconds.append((0, 0))
        self._second = second
