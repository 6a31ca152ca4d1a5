"""psqlpy's pool, and the wires of the connections that are out of it."""

import asyncio

import psqlpy
from psqlpy import Connection, ConnectionPool
from psqlpy.exceptions import InterfaceError

from psqlpy_pool.wire import Wire, find, wire_of
from pyscopg2.core.adapter.driver_params import supported
from pyscopg2.core.dsn import Target

PARAMS = ("application_name", "connect_timeout", "options")
"""Of the DSN's parameters, what is made use of here."""


class Pool:
    """`psqlpy.ConnectionPool`, which makes an object for each acquire and does not say which
    connection it stands for. So each acquire asks the server: one round trip."""

    def __init__(self, target: Target, max_size: int) -> None:
        params = supported(target, PARAMS)
        seconds = int(params.get("connect_timeout") or 0)
        # psqlpy's own is over when the socket is open, be the server frozen or not.
        self._timeout = seconds if seconds > 0 else None
        self.max_size = max_size
        self.wires: dict[int, tuple[Connection, Wire]] = {}
        """Of the connections that are out, by their ``id()``."""
        self._descriptors: dict[int, int] = {}
        """By their sockets' own ports, as far as is known."""
        self._peer = target.port
        self._is_closed = False
        self._driver = ConnectionPool(
            host=target.hostaddr or target.host or "localhost",
            port=target.port,
            username=target.user,
            password=target.password,
            db_name=target.dbname,
            application_name=params.get("application_name"),
            options=params.get("options"),
            max_db_pool_size=max_size,
        )

    async def acquire(self) -> Connection:
        """One that answers, or the driver's error. `TimeoutError`: it takes too long to connect."""
        async with asyncio.timeout(self._timeout):
            return await self._acquire()

    async def _acquire(self) -> Connection:
        failure: psqlpy.Error | None = None
        for _ in range(self.max_size):
            connection = await self._driver.connection()
            try:
                wire = await self._wire(connection)
            except psqlpy.Error as exc:
                # It was closed while it was idle: the pool notices when it has it back.
                connection.close()
                failure = exc
            except BaseException:
                connection.close()
                raise
            else:
                if wire is None or self._is_closed:
                    connection.close()
                    raise InterfaceError("the pool is closed, or a proxy stands before the server")
                self.wires[id(connection)] = connection, wire
                return connection
        raise InterfaceError("no connection of the pool answers") from failure

    async def release(self, connection: Connection) -> None:
        """Roll back what is open, and give it back; that waits for what still runs."""
        _, wire = self.wires.pop(id(connection), (None, None))
        if wire is None:
            raise ValueError("not a connection of this pool's, or given back already")
        try:
            if not wire.has_ended():
                await _reset(connection)
        finally:
            connection.close()
            wire.close()

    def close(self) -> None:
        self._is_closed = True
        self._driver.close()

    def terminate(self) -> None:
        """Those that are idle, too: one may wait for an answer that nobody is interested in."""
        self.close()
        for port, fileno in self._descriptors.items():
            if (wire := wire_of(fileno, port, self._peer)) is not None:
                wire.cut()
                wire.close()

    async def _wire(self, connection: Connection) -> Wire | None:
        told = await connection.execute("SELECT pg_catalog.inet_client_port()", prepared=False)
        ((port,),) = told.result(as_tuple=True)
        known = self._descriptors.get(port, -1)
        wire = wire_of(known, port, self._peer) if known >= 0 else None
        if wire is None and (found := find(port, self._peer)) is not None:
            if len(self._descriptors) >= self.max_size:
                self._descriptors = {p: n for p, n in self._descriptors.items() if self._is(n, p)}
            self._descriptors[port], wire = found
        return wire

    def _is(self, fileno: int, port: int) -> bool:
        """Whether that descriptor is still the socket that had this port."""
        return wire_of(fileno, port, self._peer) is not None


async def _reset(connection: Connection) -> None:
    try:
        # A ROLLBACK alone is a warning in the server's log, where nothing is open.
        await connection.execute_batch("BEGIN; ROLLBACK")
    except psqlpy.Error:
        # Within a transaction that has failed the first of them is refused.
        await connection.execute_batch("ROLLBACK")
