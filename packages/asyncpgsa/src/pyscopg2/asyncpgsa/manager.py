"""The manager whose connections are asyncpgsa's own."""

from typing import TYPE_CHECKING

from pyscopg2.asyncpgsa.adapter import AsyncpgsaAdapter
from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter

if TYPE_CHECKING:
    from asyncpg import Pool, Record
    from asyncpg.pool import PoolConnectionProxy


class PoolManager(BasePoolManager["Pool[Record]", "PoolConnectionProxy[Record]"]):
    """Hands out `asyncpg.pool.PoolConnectionProxy`, as a pool of asyncpgsa does: its
    methods take SQLAlchemy's expressions too.

    ``pool_factory_kwargs`` are those of `asyncpgsa.create_pool`. Blocks end as asyncpg's do:
    nothing is committed or rolled back but by your own transactions.
    """

    adapter: Adapter["Pool[Record]", "PoolConnectionProxy[Record]"] = AsyncpgsaAdapter()
