"""Users who read with bounds: each knows what it has to see."""

import asyncio
import contextlib
from collections.abc import Awaitable
from random import Random
from typing import Any

from pyscopg2.core.wal import WalPosition
from pyscopg2.testing.fake import FakeConnection
from pyscopg2.testing.fake_server import FakeError

from .user import Operation, Scene, Stage, UserError, use


class Reader(Operation):
    """One operation whose read has a bound."""

    def __init__(self, scene: Scene, name: str, roll: Random) -> None:
        super().__init__(scene, name, roll)
        self.kind = roll.choice(READING)
        self.read_only = True
        self.timeout = roll.choice((None, 0.3, 1.0, 3.0))
        self.fallback = roll.choice((None, True, False))
        self.weight = roll.choice((None, 0.0, 1.0))
        self.max_lag: float | None = None
        """Of its read, in seconds."""
        self.own: list[str] = []
        """What it has written, which its read has to see as far as it was committed."""

    async def bounded_read(self) -> None:
        self.max_lag = self.roll.choice((0.05, 0.3, 0.3, 1.0, 3.0))
        await self._read(max_lag=self.max_lag)

    async def read_own_write(self) -> None:
        position = await self._write_and_tell()
        if self.roll.random() < 0.3:
            self.max_lag = 1.0
        await self._read(after=position, max_lag=self.max_lag)

    async def session(self) -> None:
        with self.scene.manager.causal():
            for _ in range(self.roll.randint(1, 3)):
                with contextlib.suppress(UserError, TimeoutError, FakeError, ConnectionError):
                    async with asyncio.timeout(self.roll.choice((0.001, 0.05, 5.0, 5.0, 5.0))):
                        await self._write_somehow()
                await self._read()

    # Writing

    async def _write_and_tell(self) -> WalPosition:
        manager = self.scene.manager
        self.read_only = False
        self.enter(Stage.ACQUIRE)
        async with manager.acquire_master(self.timeout, by=self) as connection:
            self._hold(connection)
            try:
                await self._insert(connection)
                if self.scene.plan.commits_at_end:
                    await connection.commit()
                return await manager.wal_position(connection)
            finally:
                self._leave(connection)

    async def _write_somehow(self) -> None:
        self.read_only = False
        way = self.roll.randrange(3)
        self.enter(Stage.ACQUIRE)
        acquiring: Any = self.scene.manager.acquire_master(self.timeout, by=self)
        if way == 0:
            connection = await acquiring
            try:
                self._hold(connection)
                await self._insert(connection)
                if self.scene.plan.commits_at_end:
                    await connection.commit()
            finally:
                self._leave(connection)
                await self._give_back(self.scene.manager.release(connection))
            return
        async with acquiring as connection:
            self._hold(connection)
            try:
                await self._insert(connection)
                if self.roll.random() < 0.2:
                    await asyncio.sleep(0.05)
                if way == 1 and self.roll.random() < 0.3:
                    raise UserError
            finally:
                self._leave(connection)

    async def _give_back(self, release: Awaitable[None]) -> None:
        with contextlib.suppress(FakeError, ConnectionError):
            await release

    async def _insert(self, connection: FakeConnection) -> None:
        statement = f"insert {self.name}.{len(self.own)}"
        self.own.append(statement)
        await connection.execute(statement)
        self.scene.wrote(self, connection)

    # Reading

    async def _read(self, **bound: Any) -> None:
        self.read_only = True
        patience = None
        if self.falls_back and self.roll.random() < 0.5:
            patience = self.roll.choice((0.0, 0.05, 1.0))
        self.enter(Stage.ACQUIRE)
        async with self.scene.manager.acquire_replica(
            self.fallback, self.weight, self.timeout, patience=patience, **bound, by=self
        ) as connection:
            self._hold(connection)
            self.scene.reads(self, connection)
            try:
                await connection.execute("select 1")
            finally:
                self._leave(connection)


READING = ("bounded_read", "bounded_read", "read_own_write", "session", "session")

READERS = 3
"""In a world that has them."""


async def read(scene: Scene, number: int, roll: Random) -> None:
    """One reader's life."""
    await use(scene, f"reader {number}", roll, Reader)
