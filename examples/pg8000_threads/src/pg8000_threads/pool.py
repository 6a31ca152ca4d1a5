"""As many connections to one host as are wanted at once, up to a maximum."""

import asyncio
from typing import Self

from pg8000.native import InterfaceError

from pg8000_threads.connection import Connection
from pyscopg2.core.dsn import Target


class Pool:
    """Opens a connection when none is idle, and keeps it. It has no line to wait in."""

    def __init__(self, target: Target, maxsize: int) -> None:
        self.maxsize = maxsize
        self._target = target
        self._idle: list[Connection] = []
        self._out: set[Connection] = set()
        self._resetting: set[Connection] = set()
        self._opening: set[asyncio.Timeout] = set()
        self._closed = False

    @classmethod
    async def open(cls, target: Target, maxsize: int) -> Self:
        """A pool with one connection, or the error that kept it from having one."""
        self = cls(target, maxsize)
        await self.release(await self.acquire())
        return self

    @property
    def freesize(self) -> int:
        return self.maxsize - len(self._out) - len(self._resetting) - len(self._opening)

    async def acquire(self) -> Connection:
        connection = self._take_idle() or await self._open()
        self._out.add(connection)
        return connection

    async def release(self, connection: Connection) -> None:
        if connection not in self._out:  # it was given back before
            return
        self._out.remove(connection)
        self._resetting.add(connection)
        try:
            await connection.reset()
        finally:
            self._resetting.remove(connection)
            if self._closed:
                connection.close()
            if not connection.closed:
                self._idle.append(connection)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def terminate(self) -> None:
        self._closed = True
        for connection in (*self._idle, *self._out, *self._resetting):
            connection.terminate()
        self._idle.clear()
        while self._opening:
            self._opening.pop().reschedule(0)

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_quiet():
                return connection
            connection.terminate()
        return None

    async def _open(self) -> Connection:
        self._check_open()
        if not self.freesize:
            raise InterfaceError("the pool is exhausted")
        try:
            async with asyncio.timeout(None) as limit:  # which passes when the pool is terminated
                self._opening.add(limit)
                try:
                    connection = await Connection.open(self._target)
                finally:
                    self._opening.discard(limit)
        except TimeoutError:
            self._check_open()
            raise
        if self._closed:
            connection.close()
        self._check_open()
        return connection

    def _check_open(self) -> None:
        if self._closed:
            raise InterfaceError("the pool is closed")
