"""The alert rules, on what a collector exports in virtual time."""

import asyncio
import math
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from promql_parser import Expr, parse_duration
from tests.prometheus.promql import evaluate, parse
from tests.prometheus.scraping import History, Labels, Vector, samples_in, text_of, without_name

from pyscopg2.prometheus import PoolCollector

FILE = Path(__file__).parents[2] / "packages/prometheus/docs/alerts.yaml"
INTERVAL = 14.0
"""Seconds from one scrape to the next, and then the rules are looked at. It divides none of their
times: whether a sample at the very edge of a range counts depends on Prometheus' version."""


@dataclass
class Rule:
    """One alert."""

    name: str
    expr: Expr
    wait: float
    """Seconds for which it has to be true."""
    labels: dict[str, str]
    annotations: dict[str, str]
    since: dict[Labels, float] = field(default_factory=dict[Labels, float])
    """When it became true, for each set of labels for which it is."""

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Rule":
        wait = parse_duration(given["for"]) if "for" in given else timedelta(0)
        return cls(
            given["alert"],
            parse(given["expr"]),
            wait.total_seconds(),
            given["labels"],
            given["annotations"],
        )

    def look(self, history: History, at: float) -> None:
        true = {without_name(labels) for labels in evaluate(self.expr, history, at)}
        self.since = {labels: self.since.get(labels, at) for labels in true}

    def firing(self, at: float) -> set[Labels]:
        return {labels for labels, since in self.since.items() if at - since >= self.wait}


def rules() -> list[Rule]:
    (group,) = yaml.safe_load(FILE.read_text())["groups"]
    return [Rule.of(each) for each in group["rules"]]


class Watch:
    """A Prometheus that scrapes one process, and looks at all rules."""

    def __init__(self, collector: PoolCollector) -> None:
        self.history = History()
        self.rules = {rule.name: rule for rule in rules()}
        self.fired: list[dict[str, set[Labels]]] = []
        """After each scrape, the alerts that fire, and for which labels."""
        self._collector = collector
        self._at = 0.0

    def look(self) -> None:
        """Scrape, and look at the rules."""
        self._at = len(self.history.times) * INTERVAL
        samples = samples_in(text_of(self._collector))
        self.history.add(self._at, samples, job="app", instance="app1:80")
        for rule in self.rules.values():
            rule.look(self.history, self._at)
        self.fired.append({name: rule.firing(self._at) for name, rule in self.rules.items()})

    async def watch(self, seconds: float) -> None:
        """For so long, or little longer."""
        for _ in range(math.ceil(seconds / INTERVAL)):
            self.look()
            await asyncio.sleep(INTERVAL)

    def value_of(self, expr: Expr) -> Vector:
        """With what was scraped last."""
        return evaluate(expr, self.history, self._at)

    def firing(self, name: str) -> list[dict[str, str]]:
        """The labels for which an alert fires, but for the job and the pool."""
        return [
            {name: value for name, value in labels if name not in {"job", "pool"}}
            for labels in sorted(self.fired[-1][name], key=sorted)
        ]

    @property
    def alerts(self) -> set[str]:
        """Those that fire."""
        return {name for name, labels in self.fired[-1].items() if labels}
