"""What has happened to a manager in the last minutes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from pyscopg2.core.events import (
    AcquireTimedOut,
    CheckFailed,
    CheckRecovered,
    Event,
    HostChanged,
    MasterChanged,
)
from pyscopg2.core.topology import Topology

WINDOW = 600.0
"""Seconds of which the hosts' roles are known."""

MOST_CHANGES = 1000
"""Of one host: where there were more, the window is shorter."""

MOST_EVENTS = 100

QUIET = 10.0
"""Seconds from an acquire that timed out to the next one that is news."""


class Journal:
    """Listens to one manager, and keeps its hosts' roles and its last events, within bounds.

    It holds text and numbers alone: no pool, and no connection, lives longer by it.
    """

    def __init__(self, topology: Topology, now: float) -> None:
        """``now``: in seconds since the epoch."""
        self._roles = {
            host.address: deque([(now, host.role.value)], maxlen=MOST_CHANGES) for host in topology
        }
        self._events: deque[dict[str, object]] = deque(maxlen=MOST_EVENTS)
        self.news = News()

    def hear(self, event: Event) -> None:
        """One more; called by the manager."""
        if isinstance(event, HostChanged) and event.before.role is not event.after.role:
            self._roles[event.address].append((event.at, event.after.role.value))
        if self.news.has(event):
            self._events.append(event_as_dict(event))

    def as_dict(self, now: float) -> dict[str, object]:
        """For JSON: ``roles``, by address, each with the moment from when on the host had it; and
        ``events``, the last one last."""
        for roles in self._roles.values():
            while len(roles) > 1 and roles[1][0] <= now - WINDOW:
                roles.popleft()
        return {
            "roles": {address: list(roles) for address, roles in self._roles.items()},
            "events": list(self._events),
        }


class News:
    """Which events say something new.

    A host that is down is checked several times a second, and each check that fails is an event; in
    an outage each acquire times out. These would hide all others. And where a host is in another
    state that reads the same, its pool has come or gone, of which other events tell.
    """

    def __init__(
        self, reasons: Mapping[str, str] | None = None, timed_out_at: float = -math.inf
    ) -> None:
        self._reasons = dict(reasons or {})
        """Of the hosts whose last check failed, by address."""
        self._timed_out_at = timed_out_at
        """When the last acquire did that was news, in seconds since the epoch."""

    def copy(self) -> News:
        return News(self._reasons, self._timed_out_at)

    def has(self, event: Event) -> bool:
        """To be asked of each event, in their order."""
        match event:
            case CheckFailed(address=address, reason=reason):
                known = self._reasons.get(address)
                self._reasons[address] = reason
                return known != reason
            case CheckRecovered(address=address):
                self._reasons.pop(address, None)
                return True
            case AcquireTimedOut(at=at):
                is_news = not 0 <= at - self._timed_out_at < QUIET
                if is_news:
                    self._timed_out_at = at
                return is_news
            case HostChanged(before=before, after=after):
                return str(before) != str(after)
            case _:
                return True


def event_as_dict(event: Event) -> dict[str, object]:
    """For JSON: ``at``, in seconds since the epoch; ``kind``; ``text``. Where a host has another
    role, its ``address`` and ``role``; where the master is another one, ``master``: its address."""
    told: dict[str, object] = {
        "at": event.at,
        "kind": type(event).__name__,
        "text": str(event),
    }
    if isinstance(event, HostChanged) and event.before.role is not event.after.role:
        told |= {"address": event.address, "role": event.after.role.value}
    elif isinstance(event, MasterChanged):
        told["master"] = event.after
    return told
