"""pyscopg2 over pg8000, a blocking driver, by way of threads."""

from pg8000_threads.adapter import Pg8000Adapter, Pool, PoolManager
from pg8000_threads.connection import Connection

__all__ = ("Connection", "Pg8000Adapter", "Pool", "PoolManager")
