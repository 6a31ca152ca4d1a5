"""The manager's events, held against one another, and against what they tell of."""

from collections.abc import Callable

from pyscopg2.core.events import (
    CheckFailed,
    CheckRecovered,
    Event,
    HostChanged,
    ManagerClosed,
    ManagerStarted,
    MasterChanged,
    PoolClosed,
    PoolOpened,
    PoolRetired,
)
from pyscopg2.core.topology import Role, Topology

TOLD = "events tell what happened, in order"


class Chronicle:
    """A listener that knows the hosts by events alone."""

    def __init__(self, topology: Topology, broken: Callable[[str, str], None]) -> None:
        self._broken = broken
        self._roles = {host.address: Role.UNKNOWN for host in topology}
        self._master: str | None = None
        self._failures: dict[str, int] = {}
        self._pools: dict[str, object] = {}
        self._retired: list[object] = []
        self._has_started = False
        self._has_closed = False

    def hear(self, event: Event) -> None:
        if self._has_started is isinstance(event, ManagerStarted):
            self._broken(TOLD, f"{event}: it is not the first, or not alone")
        if self._has_closed:
            self._broken(TOLD, f"{event}: after the end")
        match event:
            case ManagerStarted():
                self._has_started = True
            case ManagerClosed():
                self._has_closed = True
                if self._pools:
                    self._broken(TOLD, f"closed, and pools of {list(self._pools)} are not retired")
            case CheckFailed(address=address):
                self._failures[address] = self._failures.get(address, 0) + 1
            case CheckRecovered(address=address, failures=failures):
                if self._failures.pop(address, 0) != failures:
                    self._broken(TOLD, f"{event}: {failures} are too many or too few")
            case HostChanged(before=before, after=after):
                if before.role is not self._roles[event.address]:
                    self._broken(TOLD, f"{event}: it was {self._roles[event.address].value}")
                self._roles[event.address] = after.role
            case MasterChanged(before=old, after=new):
                if old != self._master or old == new:
                    self._broken(TOLD, f"{event}: it was {self._master}")
                self._master = new
            case PoolOpened(address=address, pool=pool):
                if address in self._pools:
                    self._broken(TOLD, f"{event}: it has one")
                self._pools[address] = pool
            case PoolRetired(address=address, pool=pool):
                if self._pools.pop(address, None) is not pool:
                    self._broken(TOLD, f"{event}: it was not open")
                self._retired.append(pool)
            case PoolClosed(pool=pool):
                if pool not in self._retired:
                    self._broken(TOLD, f"{event}: it was not retired, or closed before")
                else:
                    self._retired.remove(pool)
            case _:
                pass

    def compare(self, topology: Topology) -> None:
        """Between two turns of the event loop nothing is left to be told."""
        if self._has_closed:
            return
        roles = {host.address: host.role for host in topology}
        if roles != self._roles:
            self._broken(TOLD, f"by events {self._roles}: {topology}")
        master = topology.masters[0].address if topology.masters else None
        if master != self._master:
            self._broken(TOLD, f"by events the master is {self._master}: {topology}")
