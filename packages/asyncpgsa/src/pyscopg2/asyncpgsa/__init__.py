"""pyscopg2 over asyncpgsa."""

from pyscopg2.asyncpgsa.adapter import AsyncpgsaAdapter
from pyscopg2.asyncpgsa.manager import PoolManager

__all__ = ("AsyncpgsaAdapter", "PoolManager")
