"""pyscopg2 over aiopg.sa."""

from pyscopg2.aiopg_sa.adapter import AiopgSaAdapter
from pyscopg2.aiopg_sa.manager import PoolManager

__all__ = ("AiopgSaAdapter", "PoolManager")
