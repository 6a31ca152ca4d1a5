"""The manager whose connections are aiopg's own."""

from aiopg.connection import Connection
from aiopg.pool import Pool

from pyscopg2.aiopg.adapter import AiopgAdapter
from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter


class PoolManager(BasePoolManager[Pool, Connection]):
    """Hands out `aiopg.connection.Connection`, as `aiopg.pool.Pool` does.

    ``pool_factory_kwargs`` are those of `aiopg.create_pool`. Blocks end as aiopg's do: each
    statement commits by itself, unless it stands in a transaction of your own.
    """

    adapter: Adapter[Pool, Connection] = AiopgAdapter()
