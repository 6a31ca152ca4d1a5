"""pyscopg2 over mydriver."""

from mydriver_pyscopg2.adapter import Connection, Pool, PoolManager

__all__ = ("Connection", "Pool", "PoolManager")
