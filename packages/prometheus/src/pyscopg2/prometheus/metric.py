"""One metric: its name, its help, its labels, and where its values are in `Stats`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from pyscopg2.core.statistics import Distribution, HostStats, Stats

Known: TypeAlias = Iterable[tuple[str, Stats]]
"""The numbers of each pool, by its name."""

Values: TypeAlias = Iterable[tuple[tuple[str, ...], float]]
"""Each with the values of its labels, but for the pool's name."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A gauge, or a counter."""

    kind: type[GaugeMetricFamily] | type[CounterMetricFamily]
    name: str
    """Without the ``_total`` of a counter."""
    help: str
    labels: tuple[str, ...]
    """Beside ``pool``."""
    read: Callable[[Stats], Values]

    def collect(self, known: Known) -> GaugeMetricFamily | CounterMetricFamily:
        labels = ("pool", *self.labels)
        family = self.kind(self.name, self.help, labels=labels, unit=_unit(self.name))
        for pool, stats in known:
            for values, value in self.read(stats):
                family.add_metric((pool, *values), value)
        return family


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations, for each host."""

    name: str
    help: str
    read: Callable[[HostStats], Distribution | None]

    def collect(self, known: Known) -> HistogramMetricFamily:
        labels = ("pool", "host")
        family = HistogramMetricFamily(self.name, self.help, labels=labels, unit=_unit(self.name))
        for pool, stats in known:
            for host in stats:
                told = self.read(host)
                if told is not None:
                    buckets = [(str(bound), count) for bound, count in told.buckets]
                    buckets.append(("+Inf", told.count))
                    family.add_metric((pool, host.address), buckets, told.sum)
        return family


def _unit(name: str) -> str:
    return "seconds" if name.endswith("_seconds") else ""
