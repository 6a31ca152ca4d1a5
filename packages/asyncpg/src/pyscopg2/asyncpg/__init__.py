"""pyscopg2 over asyncpg."""

from pyscopg2.asyncpg.adapter import AsyncpgAdapter
from pyscopg2.asyncpg.manager import PoolManager
from pyscopg2.asyncpg.typed import TypedPoolManager

__all__ = ("AsyncpgAdapter", "PoolManager", "TypedPoolManager")
