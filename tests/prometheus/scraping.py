"""What Prometheus sees: the text of a scrape, and what it has kept of many."""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from pyscopg2.prometheus import PoolCollector

Labels: TypeAlias = frozenset[tuple[str, str]]
"""Of a series; its name is the label ``__name__``."""
Vector: TypeAlias = dict[Labels, float]


def labelled(name: str, **labels: str) -> Labels:
    return frozenset({"__name__": name, **labels}.items())


def text_of(collector: PoolCollector) -> str:
    """As a registry shows it."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def families_in(text: str) -> dict[str, Metric]:
    """As Prometheus reads it. Counters are without their ``_total``."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples_in(text: str) -> Vector:
    """`AssertionError`: a series is there twice."""
    found: Vector = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = labelled(sample.name, **sample.labels)
            assert labels not in found, labels
            found[labels] = sample.value
    return found


def labels_exported(collector: PoolCollector) -> dict[str, set[str]]:
    """The labels of each series' name, with those that Prometheus adds."""
    found: dict[str, set[str]] = {}
    for labels in samples_in(text_of(collector)):
        names = {name for name, _ in labels} - {"__name__"}
        found.setdefault(dict(labels)["__name__"], {"job", "instance"}).update(names)
    return found


@dataclass
class Scrape:
    """The samples of one."""

    samples: Vector

    @classmethod
    def of(cls, collector: PoolCollector) -> "Scrape":
        return cls(samples_in(text_of(collector)))

    def all(self, name: str, **labels: str) -> Vector:
        """Those of this name, and with these labels; by their other labels."""
        wanted = labelled(name, **labels)
        return {found - wanted: value for found, value in self.samples.items() if wanted <= found}

    def __call__(self, name: str, **labels: str) -> float | None:
        """The only one of these; None where there is none."""
        found = list(self.all(name, **labels).values())
        assert len(found) < 2, f"{name} {labels}: {found}"
        return found[0] if found else None


@dataclass
class History:
    """The samples of many scrapes, each with its time in seconds."""

    times: list[float] = field(default_factory=list[float])
    scrapes: list[dict[str, Vector]] = field(default_factory=list[dict[str, Vector]])
    """By name."""

    def add(self, at: float, samples: Vector, **target: str) -> None:
        """``target``: the labels that Prometheus adds, of whom it has scraped."""
        named: dict[str, Vector] = {}
        for labels, value in samples.items():
            name = dict(labels)["__name__"]
            named.setdefault(name, {})[labels | frozenset(target.items())] = value
        self.times.append(at)
        self.scrapes.append(named)

    def latest(self, name: str, at: float) -> Vector:
        """Of the last scrape until then."""
        number = bisect_right(self.times, at)
        return self.scrapes[number - 1].get(name, {}) if number else {}

    def between(self, name: str, after: float, until: float) -> dict[Labels, list[float]]:
        """The values of each series, in their order."""
        found: dict[Labels, list[float]] = {}
        for number in range(bisect_right(self.times, after), bisect_right(self.times, until)):
            for labels, value in self.scrapes[number].get(name, {}).items():
                found.setdefault(labels, []).append(value)
        return found


def without_name(labels: Labels) -> Labels:
    return frozenset((name, value) for name, value in labels if name != "__name__")
