"""Benchmarks: what pyscopg2 costs and what it gains, beside the bare drivers and hasql."""
