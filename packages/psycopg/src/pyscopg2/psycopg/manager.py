"""The manager whose connections are psycopg's own."""

from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter
from pyscopg2.psycopg.adapter import PsycopgAdapter
from pyscopg2.psycopg.watch import Connection, Pool


class PoolManager(BasePoolManager[Pool, Connection]):
    """Hands out `psycopg.AsyncConnection`, as `psycopg_pool.AsyncConnectionPool` does.

    ``pool_factory_kwargs`` are those of the pool. Blocks end as those of its `connection()`: they
    commit, or roll back where they raise.
    """

    adapter: Adapter[Pool, Connection] = PsycopgAdapter()
