"""The one writable place: the current topology, and the tasks that wait for it to change."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence

from pyscopg2.core.diagnosis import log
from pyscopg2.core.topology.host_state import Observation
from pyscopg2.core.topology.snapshot import Change, Topology

Listener = Callable[[Topology, Sequence[Change]], None]
"""Called with the new snapshot, and what is new in it; must not await."""

Predicate = Callable[[Topology], bool]


def _never(_: Topology) -> bool:
    return False


class Store:
    """Holds the current `Topology`; it changes by `publish`, `mark_overdue`, `settle` and
    `forget` alone."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._listeners: list[Listener] = []
        self._waiters: dict[asyncio.Future[Topology], tuple[Predicate, Predicate]] = {}
        self._serials = itertools.count(1)
        self._closed: Callable[[], Exception] | None = None

    @property
    def topology(self) -> Topology:
        return self._topology

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for a change."""
        return bool(self._waiters)

    @property
    def urgent(self) -> bool:
        """Whether anybody waits for a role that nobody has."""
        return any(is_urgent(self._topology) for _, is_urgent in self._waiters.values())

    def next_serial(self) -> int:
        """A number for a check that begins now: higher than any before."""
        return next(self._serials)

    def subscribe(self, listener: Listener) -> None:
        """Have ``listener(after, changes)`` called at each publish, in the order of subscribing."""
        self._listeners.append(listener)

    def publish(self, observation: Observation) -> None:
        """Apply an observation, tell the listeners, then wake those whose wait is over."""
        self._change(self._topology.apply(observation))

    def mark_overdue(self, address: str) -> None:
        """The host's present check takes far longer than usual. `KeyError`: there is none."""
        self._change(self._topology.mark_overdue(address))

    def settle(self) -> None:
        """From now on a master may be named, though some hosts have not answered yet."""
        self._change(self._topology.settle())

    def forget(self, address: str) -> None:
        """Drop what is known of a host. `KeyError`: there is none of that address."""
        self._change(self._topology.forget(address))

    def _change(self, after: Topology) -> None:
        changes = after.changes(self._topology)
        self._topology = after
        for listener in self._listeners:
            try:
                listener(after, changes)
            except KeyboardInterrupt:
                raise
            except BaseException as exc:
                # A listener's fault must hurt neither the monitor nor the other listeners.
                log.say(logging.ERROR, "a listener failed", exc=exc)
        for future, (predicate, _) in list(self._waiters.items()):
            _resolve(future, predicate, after)

    async def wait_for(self, predicate: Predicate, is_urgent: Predicate = _never) -> Topology:
        """The first snapshot, from now on, of which ``predicate`` holds. ``is_urgent`` tells of a
        snapshot whether what is waited for is a role that nobody has.

        Nothing is missed between the look at the present snapshot and the next one: both happen
        in the event loop's thread without an await between them. What the predicate raises is
        raised here, as is the error given to `close`.
        """
        if self._closed is not None:
            raise self._closed()
        if predicate(self._topology):
            return self._topology
        future: asyncio.Future[Topology] = asyncio.get_running_loop().create_future()
        self._waiters[future] = predicate, is_urgent
        try:
            return await future
        finally:
            del self._waiters[future]

    def close(self, error: Callable[[], Exception]) -> None:
        """Fail all waits, also those that are yet to begin: each with an ``error()`` of its own."""
        self._closed = error
        for future in self._waiters:
            if not future.done():
                future.set_exception(error())


def _resolve(future: asyncio.Future[Topology], predicate: Predicate, topology: Topology) -> None:
    if future.done():
        return
    try:
        if predicate(topology):
            future.set_result(topology)
    except Exception as exc:
        future.set_exception(exc)
