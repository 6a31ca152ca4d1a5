"""What users call: begin to tell of a manager, and end it."""

from collections.abc import Callable
from typing import Any

from opentelemetry import context, metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider
from pyscopg2.base import BasePoolManager
from pyscopg2.core.events import Event, ManagerClosed
from pyscopg2.opentelemetry.gauges import SCOPE, gauges_of
from pyscopg2.opentelemetry.names import Names, free_names
from pyscopg2.opentelemetry.recorder import Recorder
from pyscopg2.opentelemetry.tracing import Tracing

_SUPPRESSED = "suppress_instrumentation"
"""Under this key OpenTelemetry's own instrumentations look whether they are to keep silent."""


class Instrumentation:
    """One manager's, from `instrument` until `uninstrument` or the manager's end."""

    def __init__(
        self, manager: BasePoolManager[Any, Any], names: Names, ends: list[Callable[[], object]]
    ) -> None:
        self.names = names
        """Under which the manager's pools are told of."""
        self._ends = [*ends, manager.subscribe(self._follow)]

    def uninstrument(self) -> None:
        """Tell nothing more. Called again, it does nothing."""
        ends, self._ends = self._ends, []
        for end in ends:
            end()

    def _follow(self, event: Event) -> None:
        if isinstance(event, ManagerClosed):
            self.uninstrument()


def instrument(
    manager: BasePoolManager[Any, Any],
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    *,
    name: str | None = None,
    record_free: bool = True,
) -> Instrumentation:
    """Tell OpenTelemetry of a manager: metrics of its pools, spans of acquires that wait or fail.
    And keep its checks out of what the driver's instrumentation tells.

    :param meter_provider: where metrics go; None for the global one.
    :param tracer_provider: where spans go; None for the global one.
    :param name: stands before the names of the pools, which are made of host, port and database;
        for programs that have several managers of one database. Where a name is taken already, a
        number is added.
    :param record_free: whether `db.client.connection.wait_time` has those acquires, too, that found
        a connection at once. They are most, and each costs what the SDK takes to record it.
    :raises TypeError: it is no manager, or the name is no text.
    """
    _require(manager, BasePoolManager, "manager")
    if name is not None:
        _require(name, str, "name")
    names = free_names(manager, name)
    meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
    tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
    ends: list[Callable[[], object]] = [
        names.give_back,
        gauges_of(meter_provider).add(manager, names),
        manager.observe(Recorder(meter, names, record_free=record_free)),
        manager.observe(Tracing(tracer, names)),
    ]
    manager.check_context.run(_suppress)
    return Instrumentation(manager, names, ends)


def _require(value: object, kind: type, name: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, not a {type(value).__name__}")


def _suppress() -> None:
    context.attach(context.set_value(_SUPPRESSED, True))
