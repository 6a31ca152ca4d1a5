"""pg8000, as pyscopg2 sees it."""

import ssl
from collections.abc import Awaitable
from typing import Any

from pg8000.native import DatabaseError

from pg8000_threads.connection import Connection, Login
from pg8000_threads.pool import Pool
from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter
from pyscopg2.core.dsn import Target

_SSL_MODES = {"disable": False, "prefer": None, "require": True}


class Pg8000Adapter:
    """The verbs of `pyscopg2.core.adapter.Adapter`, each with what it comes to here."""

    def check_options(self, target: Target, /, **options: Any) -> None:
        _settings(target, **options)

    def create_pool(self, target: Target, /, **options: Any) -> Awaitable[Pool]:
        return Pool.open(*_settings(target, **options))

    async def close_pool(self, pool: Pool, /) -> None:
        pool.close()

    async def terminate_pool(self, pool: Pool, /) -> None:
        pool.terminate()

    def acquire_from_pool(self, pool: Pool, /, **kwargs: Any) -> Awaitable[Connection]:
        return pool.acquire(**kwargs)

    def release_to_pool(
        self, connection: Connection, pool: Pool, /, **kwargs: Any
    ) -> Awaitable[None]:
        return pool.release(connection, **kwargs)

    def terminate_connection(self, connection: Connection, /) -> None:
        connection.terminate()

    async def end_block(self, connection: Connection, exc: BaseException | None, /) -> None:
        """Nothing: each statement has committed by itself."""

    async def fetch_scalar(self, connection: Connection, query: str, /) -> object:
        rows = await connection.run(query)
        return rows[0][0] if rows else None

    def sqlstate(self, exc: BaseException, /) -> str | None:
        return exc.args[0].get("C") if isinstance(exc, DatabaseError) else None

    def get_pool_freesize(self, pool: Pool, /) -> int:
        return pool.freesize

    def get_pool_maxsize(self, pool: Pool, /) -> int:
        return pool.maxsize

    def is_connection_closed(self, connection: Connection, /) -> bool:
        return connection.closed


class PoolManager(BasePoolManager[Pool, Connection]):
    """What users construct. Options for the pool: ``max_size`` (10), and an ``ssl_context``."""

    adapter: Adapter[Pool, Connection] = Pg8000Adapter()


def _settings(
    target: Target, *, max_size: int = 10, ssl_context: ssl.SSLContext | None = None
) -> tuple[Login, int]:
    """The login, and the pool's size: the user's, and one for the monitor.

    A parameter of the DSN that pg8000 has nothing for is an error. Who asks for a verified server
    must not get an unverified one.
    """
    if max_size < 1:
        raise ValueError("max_size is at least 1")
    if not target.user:
        raise ValueError("pg8000 needs a user")
    params = dict(target.params)
    for name in ("target_session_attrs", "load_balance_hosts"):  # the manager's work
        params.pop(name, None)
    application_name = params.pop("application_name", None)
    sslmode = params.pop("sslmode", "prefer")
    if sslmode not in _SSL_MODES and ssl_context is None:
        raise ValueError(f"sslmode={sslmode} needs an ssl_context")
    startup_params = {name: params.pop(name) for name in ("options",) if name in params}
    if params:
        raise ValueError(f"pg8000 has nothing for {', '.join(params)}")
    host = target.hostaddr or target.host or "localhost"
    login = Login(
        host=host,
        port=target.port,
        user=target.user,
        password=target.password or "",
        database=target.dbname,
        application_name=application_name,
        startup_params=startup_params,
        tls_name=target.host or host,
        ssl_context=ssl_context or _SSL_MODES[sslmode],
    )
    return login, max_size + 1
