"""The manager whose connections are aiopg.sa's own."""

from aiopg.sa import Engine, SAConnection

from pyscopg2.aiopg_sa.adapter import AiopgSaAdapter
from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter


class PoolManager(BasePoolManager[Engine, SAConnection]):
    """Hands out `aiopg.sa.SAConnection`, as `aiopg.sa.Engine` does.

    ``pool_factory_kwargs`` are those of `aiopg.sa.create_engine`. Blocks end as the engine's do:
    a transaction that is still open is rolled back; outside of transactions each statement commits
    by itself.
    """

    adapter: Adapter[Engine, SAConnection] = AiopgSaAdapter()
