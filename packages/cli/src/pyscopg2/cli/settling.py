"""The moment from which a manager knows its hosts."""

import asyncio
from contextlib import suppress

from pyscopg2.asyncpg import PoolManager
from pyscopg2.core.topology import HostState, Topology


async def settle(manager: PoolManager, seconds: float) -> Topology:
    """Start the manager, wait until each host has failed or is in service, so long at most, and end
    it again; what it knew then."""
    async with manager:
        await wait_settled(manager, seconds)
        topology = manager.topology
        await manager.terminate()
    return topology


async def wait_settled(manager: PoolManager, seconds: float) -> None:
    """Wait until each host of a manager that has started has failed or is in service, so long at
    most."""
    events = manager.events()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not _is_settled(manager.topology):
                await anext(events)


def _is_settled(topology: Topology) -> bool:
    return topology.settled and all(map(_is_known, topology))


def _is_known(host: HostState) -> bool:
    return host.ready or host.has_failed
