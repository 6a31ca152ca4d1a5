"""The manager whose connections are SQLAlchemy's own."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from pyscopg2.base import BasePoolManager, WalPosition
from pyscopg2.core.adapter import Adapter
from pyscopg2.sqlalchemy.adapter import SqlalchemyAdapter
from pyscopg2.sqlalchemy.drivers import DRIVERS
from pyscopg2.sqlalchemy.engine import Engines


class PoolManager(BasePoolManager[AsyncEngine, AsyncConnection]):
    """Hands out `sqlalchemy.ext.asyncio.AsyncConnection`, as `AsyncEngine.connect` does.

    ``dsn`` may name the driver, ``postgresql+asyncpg://`` or ``postgresql+psycopg://``; where it
    does not, the one that is installed is used, asyncpg first; `ModuleNotFoundError` where it is
    not there. ``pool_factory_kwargs`` are those of `create_async_engine`. Blocks end as
    SQLAlchemy's do: what was not committed is rolled back.
    """

    adapter: Adapter[AsyncEngine, AsyncConnection] = SqlalchemyAdapter()
    adapters: Mapping[str, Adapter[AsyncEngine, AsyncConnection]] = {
        f"postgresql+{driver}://": SqlalchemyAdapter(driver) for driver in DRIVERS
    }

    def engine(
        self,
        read_only: bool = False,
        fallback_master: bool | None = None,
        master_as_replica_weight: float | None = None,
        timeout: float | None = None,
        *,
        max_lag: float | None = None,
        after: WalPosition | str | None = None,
        patience: float | None = None,
    ) -> AsyncEngine:
        """An engine whose connections are acquired from this manager, each to the host that is
        right at that moment, and released to it: for `async_sessionmaker`, and for all that wants
        an `AsyncEngine`. The arguments are those of `acquire`.

        It has no pool of its own; the options in ``pool_factory_kwargs`` that are for pools and
        connections are heeded by those of the hosts. Make it once: each call makes another, with
        listeners to events, and a cache of compiled statements, of its own. A connection that is
        detached keeps its slot until it is closed. To dispose of it does nothing.

        Where a connection is wanted it raises what `acquire` raises; `InvalidRequestError` for
        two-phase transactions. A rollback unanswered for the refresh timeout fails, and its
        connection is lost.

        :raises TypeError: as `acquire`.
        :raises ValueError: as `acquire`.
        """
        return Engines(self).engine(
            read_only=read_only,
            fallback_master=fallback_master,
            master_as_replica_weight=master_as_replica_weight,
            timeout=timeout,
            max_lag=max_lag,
            after=after,
            patience=patience,
        )
