"""Where one server's connections are reserved, for the tests of what `Reserves`."""

from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic

from pyscopg2.core.adapter import ConnT, PoolT, ReservedConnection, Reserves
from pyscopg2.core.dsn import Target
from pyscopg2.testing.bench import Bench

__all__ = ("Booth",)


class Booth(Generic[PoolT, ConnT]):
    """Where one server's connections are reserved."""

    def __init__(self, bench: Bench[PoolT, ConnT], adapter: Reserves) -> None:
        self.bench = bench
        self._adapter = adapter

    def run(self, main: Coroutine[Any, Any, None], /) -> None:
        self.bench.run(main)

    async def reserve(self, target: Target, **more: Any) -> ReservedConnection:
        """With what users say of the pool, which is all left out, or says how to connect."""
        options = {**self.bench.subject.options, **self.bench.subject.sizes(1, 2), **more}
        return await self._adapter.reserve(target, **options)

    @asynccontextmanager
    async def reserved(
        self, target: Target | None = None, **more: Any
    ) -> AsyncGenerator[ReservedConnection]:
        """One, terminated in the end; no socket of its own is left then."""
        sockets = self.bench.sockets()
        reserved = await self.reserve(self.bench.target() if target is None else target, **more)
        try:
            yield reserved
        finally:
            reserved.terminate()
        await self.bench.sockets_close(sockets)

    async def pid_of(self, reserved: ReservedConnection) -> int:
        return int(str(await reserved.fetch_scalar("SELECT pg_backend_pid()")))
