"""Spans of those acquires that wait or fail."""

import time

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from pyscopg2.opentelemetry import conventions
from pyscopg2.opentelemetry.names import Names

SPAN = "pyscopg2.acquire"


class Tracing:
    """An `AcquireObserver`. It is told in the user's task: so the span is a child of what the user
    does there."""

    def __init__(self, tracer: Tracer, names: Names) -> None:
        self._tracer = tracer
        self._names = names

    def acquired(self, address: str, seconds: float, waited: bool) -> None:
        if waited:
            self._tell(self._names.hosts[address], seconds, None)

    def failed(self, seconds: float, error: BaseException) -> None:
        self._tell(self._names.manager, seconds, error)

    def connected(self, address: str, seconds: float) -> None:
        """A part of the acquire."""

    def released(self, address: str, seconds: float) -> None:
        """The acquire is long over."""

    def _tell(self, pool: str, seconds: float, error: BaseException | None) -> None:
        now = time.time_ns()
        span = self._tracer.start_span(
            SPAN,
            kind=SpanKind.INTERNAL,
            attributes={conventions.POOL_NAME: pool},
            start_time=now - int(seconds * 1e9),
        )
        if error is not None:
            span.set_attribute(conventions.ERROR_TYPE, type(error).__qualname__)
            if isinstance(error, Exception):
                # A task that is cancelled is no error.
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, str(error)))
        span.end(now)
