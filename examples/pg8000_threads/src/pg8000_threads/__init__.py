"""pyscopg2 over pg8000, a blocking driver, by way of threads."""

from pg8000_threads.adapter import Pg8000Adapter, PoolManager
from pg8000_threads.connection import Connection
from pg8000_threads.pool import Pool

__all__ = ("Connection", "Pg8000Adapter", "Pool", "PoolManager")
