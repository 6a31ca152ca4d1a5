"""The part of `pyscopg2.testing.manager_contract` on what users hang on each acquire."""

import asyncio
from contextvars import ContextVar
from typing import Generic

import pytest

from pyscopg2.core.adapter import ConnT, PoolT, Reserves
from pyscopg2.testing.bench import SOON
from pyscopg2.testing.contracts.manager.desk import SIZE, Desk
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("HookContract",)

_tenant: ContextVar[str] = ContextVar("_tenant")
"""What the request is about, as a user's hook would look it up."""


class HookContract(Generic[PoolT, ConnT]):
    """A part of `ManagerContract`."""

    @in_own_loop
    async def test_checks_call_no_hook(self, desk: Desk[PoolT, ConnT]) -> None:
        """Where the adapter has a connection apart for them."""
        if not isinstance(desk.subject.driver.adapter, Reserves):
            pytest.skip("the monitor takes its connection from the adapter's pool")
        calls: list[str | None] = []
        options = desk.hooked(lambda: calls.append(_tenant.get(None)))
        async with desk.manager(refresh_delay=0.05, pool_factory_kwargs=options) as manager:
            for _ in range(3):
                await manager.wait_next_pool_check()
            assert calls == [], "the user's hook was run for a check"
            _tenant.set("the request's")
            await manager.release(await manager.acquire())
            assert calls == ["the request's"], "the user's hook is run once at each acquire"

    @in_own_loop
    async def test_the_error_of_a_hook_is_the_users_at_once(self, desk: Desk[PoolT, ConnT]) -> None:
        """It fails where there is no request; and the hosts stay."""
        if not isinstance(desk.subject.driver.adapter, Reserves):
            pytest.skip("the monitor takes its connection from the adapter's pool")
        options = desk.hooked(lambda: _tenant.get())
        async with desk.manager(pool_factory_kwargs=options) as manager:
            pools = manager.pools
            async with asyncio.timeout(SOON), desk.watching(manager) as hosts_lost:
                for _ in range(SIZE + 1):
                    for acquiring in (
                        manager.acquire(),
                        manager.acquire_replica(),
                        manager.acquire_from_pool(pools[0]),
                    ):
                        with pytest.raises(LookupError) as caught:
                            await acquiring
                        assert caught.value.args == (_tenant,), "the hook's own error"
                await manager.wait_next_pool_check()
            assert not hosts_lost, "the error of a hook has cost a host its place"
            assert manager.pools == pools, "the error of a hook has cost a host its pool"
            _tenant.set("the request's")
            for node in desk.cluster.nodes:
                await desk.all_slots_are_free(manager, node)
