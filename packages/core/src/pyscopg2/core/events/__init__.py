"""What a manager tells of itself: frozen values, in a guaranteed order."""

from pyscopg2.core.events.event import (
    AcquireTimedOut,
    CheckFailed,
    CheckRecovered,
    ConnectionsTerminated,
    Event,
    EventsDropped,
    HostChanged,
    ManagerClosed,
    ManagerStarted,
    MasterChanged,
    PoolClosed,
    PoolOpened,
    PoolRetired,
)
from pyscopg2.core.events.stream import EventStream

__all__ = (
    "AcquireTimedOut",
    "CheckFailed",
    "CheckRecovered",
    "ConnectionsTerminated",
    "Event",
    "EventStream",
    "EventsDropped",
    "HostChanged",
    "ManagerClosed",
    "ManagerStarted",
    "MasterChanged",
    "PoolClosed",
    "PoolOpened",
    "PoolRetired",
)
