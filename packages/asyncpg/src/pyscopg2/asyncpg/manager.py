"""The manager whose connections are asyncpg's own."""

from typing import TYPE_CHECKING

from pyscopg2.asyncpg.adapter import AsyncpgAdapter
from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter

if TYPE_CHECKING:
    from asyncpg import Pool, Record
    from asyncpg.pool import PoolConnectionProxy


class PoolManager(BasePoolManager["Pool[Record]", "PoolConnectionProxy[Record]"]):
    """Hands out `asyncpg.pool.PoolConnectionProxy`, as `asyncpg.Pool` does.

    ``pool_factory_kwargs`` are those of `asyncpg.create_pool`. Blocks end as asyncpg's do: nothing
    is committed or rolled back but by your own transactions.
    """

    adapter: Adapter["Pool[Record]", "PoolConnectionProxy[Record]"] = AsyncpgAdapter()
