"""Providers that keep what they are told, and managers on scripted hosts."""

from collections.abc import Iterator
from typing import Any, TypeAlias

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

Attributes: TypeAlias = dict[str, Any]


class Telemetry:
    """What a program's SDK has."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self._reader])
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))

    def collect(self) -> dict[str, tuple[str, Metric]]:
        """By name: the scope, and the metric. No name is told by two."""
        found: dict[str, tuple[str, Metric]] = {}
        for scope, metric in self._metrics():
            assert metric.name not in found, metric.name
            found[metric.name] = scope, metric
        return found

    def _metrics(self) -> Iterator[tuple[str, Metric]]:
        data = self._reader.get_metrics_data()
        if data is None:
            return
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    yield scope.scope.name, metric

    def points(self, name: str) -> list[tuple[Attributes, Any]]:
        """Of one metric: what each is of, and its number, or the whole of a histogram."""
        found = self.collect().get(name)
        if found is None:
            return []
        return [
            (dict(p.attributes or {}), p.value if isinstance(p, NumberDataPoint) else p)
            for p in found[1].data.data_points
        ]

    def values(self, name: str) -> dict[str, Any]:
        """By the pool's name."""
        return {each["db.client.connection.pool.name"]: value for each, value in self.points(name)}

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())
