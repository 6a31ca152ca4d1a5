"""The manager whose connections are SQLAlchemy's own."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter
from pyscopg2.sqlalchemy.adapter import SqlalchemyAdapter
from pyscopg2.sqlalchemy.drivers import DRIVERS


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
