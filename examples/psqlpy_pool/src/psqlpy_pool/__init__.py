"""pyscopg2 over psqlpy and its pool."""

from psqlpy_pool.adapter import PoolManager, PsqlpyAdapter
from psqlpy_pool.pool import Pool

__all__ = ("Pool", "PoolManager", "PsqlpyAdapter")
