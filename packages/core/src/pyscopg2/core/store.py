"""The one writable place: the current topology, and those who wait for it to change."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence

from pyscopg2.core.topology import Change, Observation, Topology

Listener = Callable[[Topology, Sequence[Change]], None]
"""Called with the new snapshot, and what is new in it; must not await."""

logger = logging.getLogger("pyscopg2")


class Store:
    """Holds the current `Topology`; `publish` is the only way to change it."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._listeners: list[Listener] = []
        self._waiters: dict[asyncio.Future[Topology], Callable[[Topology], bool]] = {}
        self._serials = itertools.count(1)
        self._closed: Exception | None = None

    @property
    def topology(self) -> Topology:
        return self._topology

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for a change."""
        return bool(self._waiters)

    def next_serial(self) -> int:
        """A number for a check that begins now: higher than any before."""
        return next(self._serials)

    def subscribe(self, listener: Listener) -> None:
        """Have ``listener(after, changes)`` called at each publish, in the order of subscribing."""
        self._listeners.append(listener)

    def publish(self, observation: Observation) -> None:
        """Apply an observation, tell the listeners, then wake those whose wait is over."""
        before = self._topology
        after = self._topology = before.apply(observation)
        changes = after.changes(before)
        for listener in self._listeners:
            try:
                listener(after, changes)
            except Exception:
                # A listener's fault must hurt neither the monitor nor the other listeners.
                logger.exception("a listener failed")
        for future, predicate in list(self._waiters.items()):
            _resolve(future, predicate, after)

    async def wait_for(self, predicate: Callable[[Topology], bool]) -> Topology:
        """The first snapshot, from now on, of which ``predicate`` holds.

        Nothing is missed between the look at the present snapshot and the next one: both happen
        in the event loop's thread without an await between them. What the predicate raises is
        raised here, as is the error given to `close`.
        """
        if self._closed is not None:
            raise self._closed
        if predicate(self._topology):
            return self._topology
        future: asyncio.Future[Topology] = asyncio.get_running_loop().create_future()
        self._waiters[future] = predicate
        try:
            return await future
        finally:
            del self._waiters[future]

    def close(self, error: Exception) -> None:
        """Fail all who wait, and who will, with ``error``."""
        self._closed = error
        for future in self._waiters:
            if not future.done():
                future.set_exception(error)


def _resolve(
    future: asyncio.Future[Topology], predicate: Callable[[Topology], bool], topology: Topology
) -> None:
    if future.done():
        return
    try:
        if predicate(topology):
            future.set_result(topology)
    except Exception as exc:
        future.set_exception(exc)
