"""After a connect to a host has failed, or hung: how many may try again, and when."""

import math

RETRY_GAP = 0.2
"""Seconds from a connect that failed to the next try there: each costs the server a fork."""

TRUSTED_AFTER = 1.0
"""Seconds from the last failed or tentative connect to full trust, where the host answers."""


class ConnectTrial:
    """Decides how many of a host pool's slots may be in use: its `limit`.

    It has three states. *Trusted*: all slots. *Suspended*: none. *On trial*: some; so many as are
    open for sure, and then one more at a time.

    | event | what it does |
    |---|---|
    | `connect_failed`, `connect_slow` | what is open may be used; where nothing is, suspended |
    | `connected` | one more than are in use; where that is all, trusted |
    | `acquired` | the same, where the last try is long enough ago, and all that may are in use |
    | `answered` | `RETRY_GAP` after the last try: one more; `TRUSTED_AFTER` it: trusted |

    ``in_use`` is what the host pool has in use at that moment, the one of which the event tells
    among it. Times are on the event loop's clock, in seconds.
    """

    __slots__ = ("failure", "limit", "size", "tried_at")

    def __init__(self, size: int) -> None:
        self.size = size
        """Slots in all."""
        self.limit = size
        """How many of them may be in use."""
        self.failure: Exception | None = None
        """Of the last connect that failed, while not all slots may be used again."""
        self.tried_at = -math.inf
        """When a connect failed, or one more was let try."""

    @property
    def suspended(self) -> bool:
        """Nobody comes here before a good check."""
        return self.limit == 0

    def connect_failed(self, in_use: int, now: float, failure: Exception) -> None:
        """The driver could not connect."""
        self._fall_back(in_use, now, failure)

    def connect_slow(self, in_use: int, now: float) -> None:
        """A connect takes very long, whatever the host's checks say."""
        self._fall_back(in_use, now, None)

    def _fall_back(self, in_use: int, now: float, failure: Exception | None) -> None:
        self.failure = failure
        # So many are open as are in use beside this one: the driver had none to spare, or it would
        # not have connected.
        self.limit = max(0, in_use - 1)
        self.tried_at = now

    def connected(self, in_use: int) -> bool:
        """A connect succeeded, so that the next may try at once. True where more may now."""
        if self.limit == self.size:
            self.failure = None
            return False
        self._let_try(in_use)
        return True

    def acquired(self, in_use: int, now: float) -> bool:
        """An acquire succeeded, over a new connection or one that was open. True where more may
        now."""
        if in_use < self.limit or not self.is_due(now):
            return False
        self.tried_at = now
        self._let_try(in_use)
        return True

    def answered(self, in_use: int, now: float) -> bool:
        """A check of the host succeeded. That went over a connection which was open, so that a
        connect may fail still. True where more may now."""
        if self.limit == self.size or not self.is_due(now):
            return False
        if now - self.tried_at >= TRUSTED_AFTER:
            self._trust()
        elif self.limit <= in_use:
            # One may try before all waiters do.
            self.limit = min(self.size, in_use + 1)
            self.tried_at = now
        return True

    def is_due(self, now: float) -> bool:
        """Whether the last try is so long ago that another may follow."""
        return now - self.tried_at >= RETRY_GAP

    def _let_try(self, in_use: int) -> None:
        self.limit = max(self.limit, min(self.size, in_use + 1))
        if self.limit == self.size:
            self._trust()

    def _trust(self) -> None:
        self.limit = self.size
        self.failure = None
