"""psqlpy, as pyscopg2 sees it."""

import re
from typing import Any

import psqlpy
from psqlpy import Connection
from psqlpy.exceptions import BaseConnectionPoolError

from psqlpy_pool.pool import PARAMS, Pool
from psqlpy_pool.wire import Wire
from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter
from pyscopg2.core.adapter.cutting import cut_first
from pyscopg2.core.adapter.driver_params import supported
from pyscopg2.core.adapter.refusals import refusal_sqlstate
from pyscopg2.core.dsn import Target

_BROKEN = re.compile(r"db error: (?:FATAL|PANIC)|connection closed|communicating with the server")


class PsqlpyAdapter:
    """The verbs of `pyscopg2.core.adapter.Adapter`, over psqlpy's pool."""

    def __init__(self) -> None:
        self._wires: dict[int, tuple[Connection, Wire]] = {}

    def check_options(self, target: Target, /, **options: Any) -> None:
        _sizes(**options)
        supported(target, PARAMS)
        if (target.host or "").startswith(("/", "@")) and not target.hostaddr:
            raise ValueError("psqlpy's connections are told apart by their TCP ports")

    async def create_pool(self, target: Target, /, **options: Any) -> Pool:
        self.check_options(target, **options)
        # One more: the monitor's.
        pool = Pool(target, _sizes(**options) + 1)
        try:
            # So that a host that refuses is heard of here.
            await pool.release(await pool.acquire())
        except BaseException:
            pool.terminate()
            raise
        return pool

    async def close_pool(self, pool: Pool, /) -> None:
        pool.close()

    async def terminate_pool(self, pool: Pool, /) -> None:
        pool.terminate()

    async def acquire_from_pool(self, pool: Pool, /, **kwargs: Any) -> Connection:
        connection = await pool.acquire(**kwargs)
        self._wires[id(connection)] = pool.wires[id(connection)]
        return connection

    async def release_to_pool(self, connection: Connection, pool: Pool, /, **kwargs: Any) -> None:
        releasing = pool.release(connection, **kwargs)
        try:
            await cut_first(releasing, lambda: self.terminate_connection(connection))
        finally:
            self._wires.pop(id(connection), None)

    def terminate_connection(self, connection: Connection, /) -> None:
        if (wire := self._wire(connection)) is not None:
            wire.cut()

    def is_connection_closed(self, connection: Connection, /) -> bool:
        wire = self._wire(connection)
        return wire is None or wire.has_ended()

    async def fetch_scalar(self, connection: Connection, query: str, /) -> object:
        asking = _first(connection, query)
        try:
            return await cut_first(asking, lambda: self.terminate_connection(connection))
        except psqlpy.Error as exc:
            # The server's last words have come, and the end of the stream may be on its way still.
            if _BROKEN.search(str(exc)):
                self.terminate_connection(connection)
            raise

    def sqlstate(self, exc: BaseException, /) -> str | None:
        """Psqlpy has none; why a connect was refused is known by the server's words."""
        return refusal_sqlstate(str(exc)) if isinstance(exc, BaseConnectionPoolError) else None

    def get_pool_maxsize(self, pool: Pool, /) -> int:
        return pool.max_size

    def _wire(self, connection: Connection) -> Wire | None:
        """None where it was given back: its wire may be another's by now."""
        known, wire = self._wires.get(id(connection), (None, None))
        return wire if known is connection else None


class PoolManager(BasePoolManager[Pool, Connection]):
    """What users construct. Of pool options there is ``max_size``, 10 by default."""

    adapter: Adapter[Pool, Connection] = PsqlpyAdapter()


async def _first(connection: Connection, query: str) -> object:
    rows = (await connection.execute(query, prepared=False)).result(as_tuple=True)
    return rows[0][0] if rows else None


def _sizes(*, max_size: int = 10) -> int:
    if max_size < 1:
        raise ValueError(f"max_size must be at least 1: {max_size}")
    return max_size
