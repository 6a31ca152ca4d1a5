"""What the type checkers must report, in each line that says so. ADAPTER stands for each one."""

from pyscopg2.ADAPTER import PoolManager
from pyscopg2.base import BasePoolManager
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.topology import HostState


def shown(manager: BasePoolManager[str, int], error: AcquireTimeoutError) -> tuple[HostState, str]:
    return manager.topology.hosts[0], error.no_such_attribute  # wrong


async def main(dsn: str) -> None:
    manager = PoolManager(dsn, refresh_dealy=1.0)  # wrong
    PoolManager(dsn, acquire_timeout="1 s")  # wrong
    async with manager.acquire_master() as connection:
        connection.no_such_method()  # wrong
    async with manager.acquire_replica() as connection:
        connection.no_such_method()  # wrong
    async with manager.acquire(read_only=True) as connection:
        connection.no_such_method()  # wrong
    (await manager.acquire_master()).no_such_method()  # wrong
    (await manager.acquire_replica(True)).no_such_method()  # wrong
    await manager.acquire(read_only="no")  # wrong
    await manager.release("connection")  # wrong
    with manager.acquire_master():  # wrong
        pass
    await manager.get_pool()  # wrong
    manager.get_pool_freesize("pool")  # wrong
