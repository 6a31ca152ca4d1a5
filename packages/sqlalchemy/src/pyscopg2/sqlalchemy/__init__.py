"""pyscopg2 over SQLAlchemy's asyncio extension."""

from pyscopg2.sqlalchemy.adapter import SqlalchemyAdapter
from pyscopg2.sqlalchemy.manager import PoolManager
from pyscopg2.sqlalchemy.session import SessionMaker

__all__ = ("PoolManager", "SessionMaker", "SqlalchemyAdapter")
