"""What it costs an acquire that somebody looks: events, times, Prometheus, OpenTelemetry."""

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from pyscopg2.core.events import Event
from pyscopg2.opentelemetry import instrument

from . import null
from .contenders import SIZE, managed
from .report import Report
from .rounds import Batch, Timing, interleave

Manager = Any
RECORD = "(one value of the SDK's histogram)"
Found = dict[str, Timing]


def _nobody(manager: Manager) -> None: ...


def _events(manager: Manager) -> None:
    manager.subscribe(_ignore)


def _ignore(event: Event) -> None: ...


def _times(manager: Manager) -> None:
    manager.record_times()


def _telemetry(manager: Manager, *, record_free: bool) -> None:
    meters = MeterProvider(metric_readers=[InMemoryMetricReader()])
    instrument(manager, meters, TracerProvider(), record_free=record_free)


LOOKING: dict[str, Callable[[Manager], None]] = {
    "nobody": _nobody,
    "a listener to events": _events,
    "times, as for Prometheus": _times,
    "OpenTelemetry, of those that waited and of use": lambda manager: _telemetry(
        manager, record_free=False
    ),
    "OpenTelemetry, of all": lambda manager: _telemetry(manager, record_free=True),
}


def measure(run: Callable[[Coroutine[Any, Any, Found]], Found], rounds: int) -> Report:
    found = run(_measure(rounds))
    base = found["nobody"].microseconds
    return Report(
        "watched",
        "µs for an acquire and its release on the null driver, by who looks",
        ("who looks", "µs", "added µs"),
        [
            (name, f"{timing.microseconds:.2f}", _added(name, base, timing))
            for name, timing in found.items()
        ],
        data={name: (timing.seconds, timing.ratio) for name, timing in found.items()},
    )


def _added(name: str, base: float, timing: Timing) -> str:
    return "" if name == RECORD else f"{base * (timing.ratio - 1):.2f}"


def _records() -> Batch:
    meter = MeterProvider(metric_readers=[InMemoryMetricReader()]).get_meter("bench")
    record = meter.create_histogram("value", "s").record
    attributes = {"db.client.connection.pool.name": "master:5432/bench"}

    async def batch(count: int) -> None:
        for _ in range(count):
            record(0.001, attributes)

    return batch


async def _measure(rounds: int) -> Found:
    async with AsyncExitStack() as stack:
        batches: dict[str, Batch] = {}
        for name, look in LOOKING.items():
            manager = await stack.enter_async_context(
                managed(null.PoolManager, null.DSN, {"size": SIZE})
            )
            look(manager)
            batches[name] = _acquires(manager)
        # What there is no way around: the SDK's own part, which is paid once or twice.
        batches[RECORD] = _records()
        return await interleave(batches, rounds=rounds)


def _acquires(manager: Manager) -> Batch:
    acquire = manager.acquire_master

    async def batch(count: int) -> None:
        for _ in range(count):
            async with acquire():
                pass

    return batch
