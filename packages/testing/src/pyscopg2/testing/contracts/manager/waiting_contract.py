"""The part of `pyscopg2.testing.manager_contract` on waiting for hosts."""

import asyncio
from typing import Generic

import pytest

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.core.errors import AcquireTimeoutError, NotReadyError
from pyscopg2.testing.bench import PATIENCE
from pyscopg2.testing.contracts.manager.desk import Desk
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("WaitingContract",)


class WaitingContract(Generic[PoolT, ConnT]):
    """A part of `ManagerContract`."""

    @in_own_loop
    async def test_waiting_for_hosts(self, desk: Desk[PoolT, ConnT]) -> None:
        async with desk.manager(ready=False) as manager, asyncio.timeout(PATIENCE):
            await manager.ready()
            await manager.ready(1, 2)
            await manager.ready(masters_count=0, replicas_count=0, timeout=0)
            await manager.wait_all_ready()
            await manager.wait_masters_ready(1)
            await manager.wait_replicas_ready(2)
            before = {host.address: host.serial for host in manager.topology}
            await manager.wait_next_pool_check()
            assert all(host.serial > before[host.address] for host in manager.topology), (
                "each host was checked anew"
            )
            with pytest.raises(NotReadyError) as caught:
                await manager.ready(masters_count=2, replicas_count=1, timeout=0.02)
            assert isinstance(caught.value, TimeoutError), "NotReadyError is a TimeoutError"
            with pytest.raises(NotReadyError):
                await manager.wait_next_pool_check(timeout=0)
            for waiting in (manager.wait_masters_ready(2), manager.wait_replicas_ready(3)):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(waiting, 0.02)

    @pytest.mark.parametrize("wrong", ["password", "database"])
    @in_own_loop
    async def test_errors_that_cannot_heal_are_told_at_once(
        self, desk: Desk[PoolT, ConnT], wrong: str
    ) -> None:
        desk.needs("sqlstates")
        cluster = desk.cluster
        if wrong == "password":
            dsn = cluster.dsn.replace(cluster.password, "wrong")
        else:
            dsn = cluster.dsn.removesuffix(cluster.database) + "wrong"
        async with desk.manager(dsn, ready=False, acquire_timeout=0.3) as manager:
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(NotReadyError) as caught:
                    await manager.ready(timeout=2 * PATIENCE)
            assert isinstance(caught.value.__cause__, desk.subject.errors), (
                "the driver's error is the cause"
            )
            with pytest.raises(AcquireTimeoutError) as late:
                await manager.acquire()
            assert isinstance(late.value.__cause__, desk.subject.errors), (
                "the driver's error is the cause"
            )
