"""Our own stall is nobody's fault.

While the event loop stands still, no timer rings and no answer is read: what a timer then finds
missing may be in the socket already. A timer that rings late tells of it.
"""

LATE = 0.1
"""Seconds by which a timer rings late where the event loop stood still."""


class Stall:
    """Of one timer, which goes off again and again: whether it has to excuse what it watches."""

    __slots__ = ("_has_excused", "_once")

    def __init__(self, *, once: bool) -> None:
        """``once``: in all; otherwise not twice in a row. A loop that is always late must not keep
        a frozen host alive."""
        self._once = once
        self._has_excused = False

    def excuses(self, late: float, tick: float = LATE) -> bool:
        """Whether this time does not count. ``late``: the seconds by which the timer rang late;
        ``tick``: those from one time to the next."""
        if late > min(tick, LATE) and not self._has_excused:
            self._has_excused = True
            return True
        if not self._once:
            self._has_excused = False
        return False
