"""What is registered at a registry of `prometheus_client`."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pyscopg2.base import BasePoolManager
from pyscopg2.core.events import Event, ManagerClosed
from pyscopg2.core.statistics import Stats
from pyscopg2.prometheus.metrics import METRICS
from pyscopg2.prometheus.source import Source


class PoolCollector(Collector):
    """The metrics of pool managers: ``REGISTRY.register(PoolCollector(manager))``.

    One for all managers of a registry, which refuses a second one. They are told apart by the label
    ``pool``. It may be scraped in any thread: a manager is asked in its event loop's.
    """

    def __init__(
        self,
        *managers: BasePoolManager[Any, Any],
        record_times: bool = True,
        timeout: float = 1.0,
    ) -> None:
        """``managers``: see `add`.

        :param record_times: have the managers record how long acquires take, and connections are
            used: `BasePoolManager.record_times`. Without it these histograms stay empty, unless
            somebody else has called that.
        :param timeout: seconds that one scrape waits for all managers' event loops. Of a manager
            whose loop is busy for so long, ``pyscopg2_up`` 0 is all that is told.
        """
        self._record_times = record_times
        self._timeout = timeout
        self._lock = threading.Lock()
        self._sources: tuple[Source, ...] = ()
        for manager in managers:
            self.add(manager)

    def add(self, manager: BasePoolManager[Any, Any], name: str | None = None) -> None:
        """Show one more, from now until it is closed, or `remove` is called. To be called where
        the manager may be used: before it starts, or in its event loop's thread.

        :param name: the value of its label ``pool``. None: its addresses and its database, such as
            ``db1:5432,db2:5432/app``.
        :raises ValueError: another one has this name, or the manager is here already.
        """
        if name is None:
            name = _name(manager)

        def heard(event: Event) -> None:
            if isinstance(event, ManagerClosed):
                self.remove(manager)

        with self._lock:
            for other in self._sources:
                if other.manager is manager:
                    raise ValueError(f"the pool manager is here already, as {other.name!r}")
                if other.name == name:
                    raise ValueError(f"another pool manager is {name!r}: give each a name")
            if self._record_times:
                manager.record_times()
            source = Source(manager, name, manager.subscribe(heard))
            self._sources = (*self._sources, source)

    def remove(self, manager: BasePoolManager[Any, Any]) -> None:
        """Show it no longer. One that is not here is none the worse for it."""
        with self._lock:
            gone = [source for source in self._sources if source.manager is manager]
            self._sources = tuple(each for each in self._sources if each.manager is not manager)
        for source in gone:
            source.unsubscribe()

    def describe(self) -> list[Metric]:
        """The names, for the registry, which looks whether another collector has one of them."""
        return [_up([]), *(metric.collect([]) for metric in METRICS)]

    def collect(self) -> Iterator[Metric]:
        """The numbers of now."""
        asked = [(source.name, source.ask()) for source in self._sources]
        until = time.monotonic() + self._timeout
        told = [(name, _answer(future, until)) for name, future in asked]
        yield _up([(name, stats is not None) for name, stats in told])
        known = [(name, stats) for name, stats in told if stats is not None]
        for metric in METRICS:
            yield metric.collect(known)


def _name(manager: BasePoolManager[Any, Any]) -> str:
    addresses = ",".join(host.address for host in manager.topology)
    return f"{addresses}/{manager.database}"


def _answer(asked: "Future[Stats]", until: float) -> Stats | None:
    """None: there was none in time."""
    try:
        return asked.result(max(0.0, until - time.monotonic()))
    except TimeoutError:
        asked.cancel()
        return None


def _up(answered: list[tuple[str, bool]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "pyscopg2_up",
        "Whether the pool's event loop answered in time: 1 or 0.",
        labels=("pool",),
    )
    for name, has_answered in answered:
        family.add_metric((name,), has_answered)
    return family
