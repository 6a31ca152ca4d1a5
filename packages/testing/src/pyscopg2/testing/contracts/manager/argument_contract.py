"""The part of `pyscopg2.testing.manager_contract` on names and arguments."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Generic

import pytest

from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import ChecksOptions, ConnT, PoolT
from pyscopg2.core.errors import NotReadyError
from pyscopg2.testing.bench import PATIENCE
from pyscopg2.testing.contracts.manager.desk import SIZE, Desk
from pyscopg2.testing.contracts.manager.subject import ManagerSubject
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("ArgumentContract",)


class ArgumentContract(Generic[PoolT, ConnT]):
    """A part of `ManagerContract`."""

    def test_every_name_is_there_with_its_arguments(
        self, subject: ManagerSubject[PoolT, ConnT]
    ) -> None:
        promised = [name for name in vars(BasePoolManager) if not name.startswith("_")]
        for name in ("__init__", *promised):
            expected, found = getattr(BasePoolManager, name), getattr(subject.manager, name)
            if inspect.isfunction(expected):
                arguments = inspect.signature(expected).parameters
                assert inspect.signature(found).parameters == arguments, name
            elif isinstance(expected, property):
                assert isinstance(found, property), name
                assert found.fset is None, name

    def test_a_manager_may_be_made_before_a_loop_runs(self, desk: Desk[PoolT, ConnT]) -> None:
        manager = desk.make()
        assert manager.pools == (), "a new manager has no pool"
        assert manager.available_pool_count == 0, "a new manager has no pool"

        async def use() -> None:
            async with manager:
                await manager.ready()
                await manager.release(await manager.acquire())

        desk.run(use())

    @in_own_loop
    async def test_what_the_driver_does_not_know_is_a_type_error_at_once(
        self, desk: Desk[PoolT, ConnT]
    ) -> None:
        unknown = {"no_such_option": 1}
        if isinstance(desk.subject.driver.adapter, ChecksOptions):
            with pytest.raises(TypeError):
                desk.make(pool_factory_kwargs=unknown)
        else:
            async with desk.manager(ready=False, pool_factory_kwargs=unknown) as manager:
                with pytest.raises(NotReadyError) as caught:
                    await manager.ready(timeout=PATIENCE)
                assert isinstance(caught.value.__cause__, TypeError), "why it is not ready"
        async with desk.manager() as manager:
            pool = await manager.get_pool(read_only=False)
            for acquire in (manager.acquire, manager.acquire_master):
                with pytest.raises(TypeError):
                    await acquire(no_such_argument=1)
            with pytest.raises(TypeError):
                await manager.acquire_replica(no_such_argument=1)
            with pytest.raises(TypeError):
                await manager.acquire_from_pool(pool, no_such_argument=1)
            with pytest.raises(TypeError):
                await manager.release(await manager.acquire(), no_such_argument=1)
            connection = await manager.acquire_from_pool(pool)
            with pytest.raises(TypeError):
                await manager.release_to_pool(connection, pool, no_such_argument=1)
            await desk.until(lambda: manager.get_pool_freesize(pool) == SIZE, "all is back")

    @in_own_loop
    async def test_arguments_outside_their_range_are_refused(
        self, desk: Desk[PoolT, ConnT]
    ) -> None:
        async with desk.manager(ready=False) as manager:
            for weight in (-0.1, 1.1):
                uses: list[Callable[..., object]] = [
                    desk.make,
                    partial(manager.acquire, True),
                    manager.acquire_replica,
                ]
                for use in uses:
                    with pytest.raises(ValueError, match="master_as_replica_weight"):
                        use(master_as_replica_weight=weight)
            with pytest.raises(ValueError, match="master_as_replica_weight"):
                manager.acquire(master_as_replica_weight=0.5)
            for acquire in (manager.acquire, manager.acquire_master, manager.acquire_replica):
                with pytest.raises(ValueError, match="timeout"):
                    acquire(timeout=-1)
            for masters, replicas in ((1, None), (None, 1), (-1, 1), (1, -1)):
                with pytest.raises(ValueError, match=r"masters_count|replicas_count"):
                    await manager.ready(masters, replicas)
            for refused in (manager.wait_masters_ready(-1), manager.wait_replicas_ready(-1)):
                with pytest.raises(ValueError, match="must not be negative"):
                    await refused
