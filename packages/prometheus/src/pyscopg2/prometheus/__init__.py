"""Metrics of pyscopg2's pool managers for Prometheus."""

from pyscopg2.prometheus.collector import PoolCollector

__all__ = ("PoolCollector",)
