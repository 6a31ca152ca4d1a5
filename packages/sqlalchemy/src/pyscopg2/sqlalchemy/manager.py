"""The manager whose connections are SQLAlchemy's own."""

import re
from collections.abc import Mapping
from typing import Any

from pyscopg2.balancer_policy import BalancerPolicy, GreedyBalancerPolicy
from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter
from pyscopg2.core.errors import DsnError
from pyscopg2.sqlalchemy.adapter import SqlalchemyAdapter
from pyscopg2.sqlalchemy.drivers import DRIVERS, installed_driver, is_installed
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_PLAIN = "postgresql://"
_SCHEMES = {f"postgresql+{driver}://": driver for driver in DRIVERS}


class PoolManager(BasePoolManager[AsyncEngine, AsyncConnection]):
    """Hands out `sqlalchemy.ext.asyncio.AsyncConnection`, as `AsyncEngine.connect` does.

    ``dsn`` may name the driver, ``postgresql+asyncpg://`` or ``postgresql+psycopg://``; where it
    does not, the one that is installed is used, asyncpg first. ``pool_factory_kwargs`` are those of
    `create_async_engine`. Blocks end as SQLAlchemy's do: what was not committed is rolled back.
    """

    # The instance has that of its own driver.
    adapter: Adapter[AsyncEngine, AsyncConnection] = SqlalchemyAdapter()

    def __init__(
        self,
        dsn: str,
        acquire_timeout: float = 1.0,
        refresh_delay: float = 1.0,
        refresh_timeout: float = 1.0,
        fallback_master: bool = False,
        master_as_replica_weight: float = 0.0,
        balancer_policy: BalancerPolicy | type[BalancerPolicy] = GreedyBalancerPolicy,
        stopwatch_window_size: int = 128,
        pool_factory_kwargs: Mapping[str, Any] | None = None,
        abandon_timeout: float = 10.0,
        fencing: bool = True,
    ) -> None:
        """See `BasePoolManager`.

        :raises ModuleNotFoundError: the driver is not installed.
        """
        driver, plain = _driver(dsn)
        self.adapter = SqlalchemyAdapter(driver)
        try:
            super().__init__(
                plain,
                acquire_timeout,
                refresh_delay,
                refresh_timeout,
                fallback_master,
                master_as_replica_weight,
                balancer_policy,
                stopwatch_window_size,
                pool_factory_kwargs,
                abandon_timeout,
                fencing,
            )
        except DsnError as exc:
            raise DsnError(_moved(str(exc), len(dsn) - len(plain))) from None
        self._given = dsn

    @property
    def dsn(self) -> str:
        """As it was given, the password included: not for logs."""
        return self._given


def _driver(dsn: str) -> tuple[str, str]:
    """The driver that a DSN asks for, and the DSN without that."""
    # Callers without a type checker pass None: the core says what is wrong with that.
    if isinstance(dsn, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        for scheme, driver in _SCHEMES.items():
            if dsn.startswith(scheme):
                if not is_installed(driver):
                    raise ModuleNotFoundError(
                        f"{driver} is not installed: pip install 'pyscopg2-sqlalchemy[{driver}]'"
                    )
                return driver, _PLAIN + dsn.removeprefix(scheme)
        if "://" in dsn.partition("=")[0] and not dsn.startswith((_PLAIN, "postgres://")):
            raise DsnError(
                f"the scheme of a URI is {', '.join(_SCHEMES)}, {_PLAIN} or postgres://,"
                " in lower case"
            )
    return installed_driver(), dsn


def _moved(message: str, by: int) -> str:
    """A message about the plain DSN, with its places as they are in the one that was given."""
    return re.sub(r"(?<=position )\d+", lambda place: str(int(place[0]) + by), message)
