"""The events of a manager as lines, the last of them."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pyscopg2.core.events import CheckFailed, CheckRecovered, Event, HostChanged
from pyscopg2.core.topology import HostState


@dataclass(frozen=True, slots=True)
class Line:
    """One event."""

    event: Event

    def __str__(self) -> str:
        whole, parts = divmod(self.event.at, 1)
        clock = time.strftime("%H:%M:%S", time.localtime(whole))
        return f"{clock}.{int(parts * 1000):03d}  {self.event}"


class Chronicle:
    """Hears a manager's events, and keeps the last of them as lines.

    A host that fails each check in the same way is told of once, until it answers again or fails in
    another way. One that only comes into service, or leaves it, is told of by its pool's events.
    """

    def __init__(self, limit: int, tell: Callable[[Line], None] = lambda _: None) -> None:
        """``limit``: how many lines are kept. ``tell`` is called with each."""
        self.lines: deque[Line] = deque(maxlen=limit)
        self._tell = tell
        self._reasons: dict[str, str] = {}

    def hear(self, event: Event) -> None:
        if isinstance(event, CheckRecovered):
            self._reasons.pop(event.address, None)
        elif isinstance(event, CheckFailed):
            if self._reasons.get(event.address) == event.reason:
                return
            self._reasons[event.address] = event.reason
        elif isinstance(event, HostChanged) and _look(event.before) == _look(event.after):
            return
        line = Line(event)
        self.lines.append(line)
        self._tell(line)


def _look(host: HostState) -> tuple[object, ...]:
    """What a line tells of a host beside its pool."""
    return host.role, host.overdue, host.yields_to
