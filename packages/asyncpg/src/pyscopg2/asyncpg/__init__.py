"""pyscopg2 over asyncpg."""

from pyscopg2.asyncpg.adapter import AsyncpgAdapter
from pyscopg2.asyncpg.manager import PoolManager

__all__ = ("AsyncpgAdapter", "PoolManager")
