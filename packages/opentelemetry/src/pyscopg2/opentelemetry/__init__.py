"""Metrics and traces of pyscopg2's pool managers for OpenTelemetry."""
