"""How long to wait before a block is run once more."""

import random

_FIRST = 0.05
_LONGEST = 1.0
"""Seconds."""


def backoff(repeats: int) -> float:
    """Seconds, after so many repeats: none before the first one, since mostly another host is there
    by then. From then on twice as much each time at most, and anything from 0 to that ("full
    jitter"), so that those who failed together do not come back together."""
    if repeats == 0:
        return 0.0
    # No power of more than is needed: a program may repeat for hours.
    return random.random() * min(_LONGEST, _FIRST * 2.0 ** min(repeats - 1, 10))
