"""The writers and readers: a program that uses the manager as any service would."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pyscopg2.asyncpg import PoolManager
from pyscopg2.base import AcquireContext

from .ledger import Kind, Ledger

if TYPE_CHECKING:
    from asyncpg import Connection, Record
    from asyncpg.pool import PoolConnectionProxy

    Acquired = AcquireContext[PoolConnectionProxy[Record]]

WRITERS = 4
READERS = 8
POOL_SIZE = 10
APPLICATION = "pyscopg2-demo"
CREATE_TABLE = "CREATE TABLE demo (id bigint PRIMARY KEY, written_at timestamptz DEFAULT now())"

_PAUSE = 0.01
"""Between two operations of one worker, so that the figures show routing and not the machine."""


class Load:
    """Counts in the ledger what its workers meet. A worker that meets an error goes on."""

    def __init__(
        self, ledger: Ledger, ports: dict[int, str], on_error: Callable[[str], None]
    ) -> None:
        """:param ports: the name of the host behind each port.
        :param on_error: told of the first error of each kind.
        """
        self._ledger = ledger
        self._ports = ports
        self._on_error = on_error
        self._hosts: dict[int, str] = {}
        self._ids = itertools.count(1)
        self._stopping = False

    def pool_options(self) -> dict[str, Any]:
        """For the manager's pools."""
        return {
            "min_size": 1,
            "max_size": POOL_SIZE,
            "init": self._remember,
            "server_settings": {"application_name": APPLICATION},
        }

    async def run(self, manager: PoolManager) -> None:
        """Until `stop`; returns when every worker has given its connection back."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(WRITERS):
                workers.create_task(self._work("write", manager.acquire_master, self._write))
            for _ in range(READERS):
                # Where there is no replica at all, the master serves the reads.
                workers.create_task(
                    self._work("read", lambda: manager.acquire_replica(True), self._read)
                )

    def stop(self) -> None:
        self._stopping = True

    async def _remember(self, connection: "Connection[Record]") -> None:
        """Which server a connection goes to, told by the server: asked once a connection.

        All servers are on this machine, so their process numbers differ.
        """
        port: int = await connection.fetchval("SELECT inet_server_port()")
        self._hosts[connection.get_server_pid()] = self._ports[port]

    async def _work(
        self,
        kind: Kind,
        acquire: Callable[[], "Acquired"],
        operation: "Callable[[PoolConnectionProxy[Record]], Awaitable[None]]",
    ) -> None:
        while not self._stopping:
            began = time.monotonic()
            host: str | None = None
            try:
                async with acquire() as connection:
                    host = self._hosts[connection.get_server_pid()]
                    await operation(connection)
                    self._ledger.success(kind, host)
            except Exception as error:
                name = type(error).__name__
                if not self._ledger.errors(kind)[name]:
                    line = next(iter(str(error).splitlines()), "")
                    self._on_error(f"first {name} of a {kind}: {line}")
                self._ledger.failure(kind, error, host)
                # At once, unless the error came at once too: a program that retries in a loop
                # without any pause would measure its own processor.
                await asyncio.sleep(max(0.0, _PAUSE - (time.monotonic() - began)))
            else:
                await asyncio.sleep(_PAUSE)

    async def _write(self, connection: "PoolConnectionProxy[Record]") -> None:
        number = next(self._ids)
        self._ledger.in_doubt.add(number)
        await connection.execute("INSERT INTO demo (id) VALUES ($1)", number)
        self._ledger.in_doubt.remove(number)
        self._ledger.acknowledged.add(number)

    async def _read(self, connection: "PoolConnectionProxy[Record]") -> None:
        await connection.fetchval("SELECT max(id) FROM demo")
