"""The part of `pyscopg2.testing.manager_contract` on which host serves a request."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Generic

import pytest

from pyscopg2.balancer_policy import (
    BalancerPolicy,
    GreedyBalancerPolicy,
    RandomWeightedBalancerPolicy,
    RoundRobinBalancerPolicy,
)
from pyscopg2.base import AcquireContext
from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.testing.contracts.manager.desk import SIZE, Desk
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("SelectionContract",)

POLICIES = (GreedyBalancerPolicy, RandomWeightedBalancerPolicy, RoundRobinBalancerPolicy)

each_policy = pytest.mark.parametrize("policy", POLICIES)


class SelectionContract(Generic[PoolT, ConnT]):
    """A part of `ManagerContract`."""

    @each_policy
    @in_own_loop
    async def test_acquire_gives_the_role_that_was_asked_for(
        self, desk: Desk[PoolT, ConnT], policy: type[BalancerPolicy]
    ) -> None:
        async with desk.manager(balancer_policy=policy) as manager:
            replicas = {node.name for node in desk.cluster.replicas}
            masters = {desk.cluster.primary.name}
            asked: list[tuple[Callable[[], AcquireContext[ConnT]], set[str]]] = [
                (manager.acquire, masters),
                (partial(manager.acquire, True), replicas),
                (manager.acquire_master, masters),
                (manager.acquire_replica, replicas),
            ]
            for acquire, names in asked:
                async with acquire() as connection:
                    name = await desk.server_of(manager, connection)
                    assert name in names, "a host of another role"
                    pool = desk.pool_of(manager, desk.node(name))
                    assert not manager.is_connection_closed(connection), (
                        "is_connection_closed() of a new one"
                    )
                    assert manager.get_pool_freesize(pool) == SIZE - 1, "an acquire counts one slot"
                assert manager.get_pool_freesize(pool) == SIZE, "a release frees its slot"
                connection = await acquire()
                name = await desk.server_of(manager, connection)
                assert name in names, "a host of another role"
                pool = desk.pool_of(manager, desk.node(name))
                assert manager.get_pool_freesize(pool) == SIZE - 1, "an acquire counts one slot"
                await manager.release(connection, **desk.subject.release_kwargs)
                assert manager.get_pool_freesize(pool) == SIZE, "a release frees its slot"

    @each_policy
    @in_own_loop
    async def test_a_policy_uses_both_replicas_as_it_says(
        self, desk: Desk[PoolT, ConnT], policy: type[BalancerPolicy]
    ) -> None:
        async with desk.manager(balancer_policy=policy) as manager:
            first, second = desk.cluster.replicas
            served: list[str] = []

            async def both_have_served() -> bool:
                served.append(await desk.reader(manager))
                return {first.name, second.name} == set(served)

            await desk.until(both_have_served, "both replicas serve")
            served = [await desk.reader(manager) for _ in range(6)]
            if issubclass(policy, RoundRobinBalancerPolicy):
                assert sorted(served[:2]) == sorted([first.name, second.name]), "round robin"
                assert served == served[:2] * 3, "round robin"
            if issubclass(policy, GreedyBalancerPolicy):
                async with manager.acquire_from_pool(desk.pool_of(manager, first)):
                    served = [await desk.reader(manager) for _ in range(6)]
                    assert served == [second.name] * 6, "the one with more free connections"

    @each_policy
    @in_own_loop
    async def test_reads_fall_back_to_a_master_only_when_told_so(
        self, desk: Desk[PoolT, ConnT], policy: type[BalancerPolicy]
    ) -> None:
        primary = desk.cluster.primary
        async with desk.manager(primary.dsn, balancer_policy=policy) as manager:
            with pytest.raises(AcquireTimeoutError):
                await manager.acquire(read_only=True, timeout=0.05)
            for acquiring in (
                manager.acquire(read_only=True, fallback_master=True),
                manager.acquire_replica(fallback_master=True),
            ):
                async with acquiring as connection:
                    assert await desk.server_of(manager, connection) == primary.name, (
                        "fallback to the master"
                    )
        async with desk.manager(
            primary.dsn, balancer_policy=policy, fallback_master=True
        ) as manager:
            assert await desk.reader(manager) == primary.name, "fallback to the master"
            with pytest.raises(AcquireTimeoutError):
                await manager.acquire_replica(fallback_master=False, timeout=0.05)
        async with desk.manager(balancer_policy=policy, fallback_master=True) as manager:
            # Replicas that are busy are there.
            held = await desk.hold_all(manager, *desk.cluster.replicas)
            with pytest.raises(AcquireTimeoutError):
                await manager.acquire_replica(timeout=0.05)
            await desk.release_all(manager, held)

    @each_policy
    @in_own_loop
    async def test_masters_serve_reads_by_their_weight(
        self, desk: Desk[PoolT, ConnT], policy: type[BalancerPolicy]
    ) -> None:
        primary = desk.cluster.primary
        async with desk.manager(balancer_policy=policy, master_as_replica_weight=0.5) as manager:
            held = await desk.hold_all(manager, *desk.cluster.replicas)
            for acquiring in (
                manager.acquire(read_only=True, master_as_replica_weight=1),
                manager.acquire_replica(master_as_replica_weight=1.0),
            ):
                async with acquiring as connection:
                    assert await desk.server_of(manager, connection) == primary.name, (
                        "a read that considers the master"
                    )

            with pytest.raises(AcquireTimeoutError):
                await manager.acquire_replica(master_as_replica_weight=0, timeout=0.02)
            # The manager's own weight. A writer comes after all of these readers, and waiters are
            # served in order: by then the readers that may use the master have done so.
            reading = [asyncio.ensure_future(desk.reader(manager)) for _ in range(40)]
            await asyncio.sleep(0)
            await desk.writer(manager)
            # Bad luck breaks it once in five million runs.
            assert 4 < sum(each.done() for each in reading) < 36, (
                "half of the reads consider the master"
            )
            await desk.release_all(manager, held)
            await asyncio.gather(*reading)
