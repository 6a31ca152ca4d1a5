"""Metrics and traces of pyscopg2's pool managers for OpenTelemetry."""

from pyscopg2.opentelemetry.instrumentation import Instrumentation, instrument

__all__ = ("Instrumentation", "instrument")
