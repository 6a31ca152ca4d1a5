"""pyscopg2 over aiopg."""

from pyscopg2.aiopg.adapter import AiopgAdapter
from pyscopg2.aiopg.manager import PoolManager

__all__ = ("AiopgAdapter", "PoolManager")
