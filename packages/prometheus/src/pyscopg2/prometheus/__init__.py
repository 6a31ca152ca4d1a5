"""Metrics of pyscopg2's pool managers for Prometheus."""
