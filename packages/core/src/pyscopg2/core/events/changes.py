"""What a change of the topology is in events."""

from collections.abc import Sequence

from pyscopg2.core.events.event import (
    CheckFailed,
    CheckRecovered,
    Event,
    HostChanged,
    MasterChanged,
    PoolOpened,
    PoolRetired,
)
from pyscopg2.core.events.listeners import Listeners
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.topology.host_state import HostState
from pyscopg2.core.topology.snapshot import Change, Topology


class Changes:
    """The store's listener that notes them, in the order that `event` promises."""

    def __init__(self, listeners: Listeners, topology: Topology) -> None:
        self._listeners = listeners
        self._master = _master(topology)
        self._outages: dict[str, tuple[int, float]] = {}
        """Of each host whose last check failed: how many did in a row, and when the first, on
        `stopwatch.clock`."""

    def follow(self, after: Topology, changes: Sequence[Change]) -> None:
        note = self._listeners.note
        for event in self._checks(changes):
            note(event)
        master = _master(after)
        if self._listeners:
            for old, new in changes:
                if _essence(old) != _essence(new):
                    note(HostChanged(before=old, after=new))
            if master != self._master:
                note(MasterChanged(before=self._master, after=master))
            for old, new in changes:
                if old.pool is not new.pool:
                    if old.pool is not None:
                        note(PoolRetired(address=old.address, pool=old.pool, why=str(new)))
                    if new.pool is not None:
                        note(PoolOpened(address=new.address, pool=new.pool))
        self._master = master

    def _checks(self, changes: Sequence[Change]) -> list[Event]:
        """Outages are counted also while nobody listens: somebody may come before they end."""
        events: list[Event] = []
        for old, new in changes:
            address = new.address
            if new.error is not None and new.error is not old.error:
                failures, began = self._outages.get(address, (0, stopwatch.clock()))
                self._outages[address] = failures + 1, began
                events.append(
                    CheckFailed(
                        address=address,
                        reason=new.reason,
                        hopeless=new.hopeless,
                        error=new.error,
                    )
                )
            elif not new.has_failed and address in self._outages:
                failures, began = self._outages.pop(address)
                failed_for = stopwatch.clock() - began
                events.append(
                    CheckRecovered(address=address, failures=failures, failed_for=failed_for)
                )
        return events


def _essence(host: HostState) -> tuple[object, ...]:
    """All of a host's state of which a change is worth telling."""
    return host.role, host.overdue, host.has_pool, host.yields_to, host.counting_system


def _master(topology: Topology) -> str | None:
    return topology.masters[0].address if topology.masters else None
