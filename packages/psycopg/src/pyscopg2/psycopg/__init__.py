"""pyscopg2 over psycopg 3."""

from pyscopg2.psycopg.adapter import PsycopgAdapter
from pyscopg2.psycopg.manager import PoolManager
from pyscopg2.psycopg.typed import TypedPoolManager

__all__ = ("PoolManager", "PsycopgAdapter", "TypedPoolManager")
