"""A manager where the kernel has no ``poll``, as on Windows. Arguments: the package, a DSN."""

import select

for name in [name for name in dir(select) if "poll" in name.lower()]:
    delattr(select, name)

import asyncio  # noqa: E402  after that
import importlib  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402


async def main(package: str, dsn: str) -> None:
    adapter = importlib.import_module(package)
    manager: Any = adapter.PoolManager(dsn)
    async with manager:
        await manager.ready()
        connection = await manager.acquire_master()
        assert not manager.is_connection_closed(connection)
        manager.adapter.terminate_connection(connection)
        assert manager.is_connection_closed(connection)
        await manager.release(connection)
        async with manager.acquire_replica(fallback_master=True) as connection:
            assert await manager.adapter.fetch_scalar(connection, "SELECT 'well'") == "well"


asyncio.run(main(*sys.argv[1:]))
