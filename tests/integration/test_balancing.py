"""Reads on real replicas, near ones and a far one, with each policy."""

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator

import pytest

from pyscopg2.asyncpg import PoolManager
from pyscopg2.balancer_policy import (
    BalancerPolicy,
    GreedyBalancerPolicy,
    PeakEwmaBalancerPolicy,
    PowerOfTwoBalancerPolicy,
    RandomWeightedBalancerPolicy,
    RoundRobinBalancerPolicy,
)
from pyscopg2.core.checkout.host_pool import RECENT
from pyscopg2.testing.cluster import LocalCluster
from pyscopg2.testing.fault_proxy import FaultProxy

from .support import MakeManager, as_application, pool_of, reader

POLICIES = (
    GreedyBalancerPolicy,
    PeakEwmaBalancerPolicy,
    PowerOfTwoBalancerPolicy,
    RandomWeightedBalancerPolicy,
    RoundRobinBalancerPolicy,
)
BY_TIME = (PeakEwmaBalancerPolicy, RandomWeightedBalancerPolicy)
"""Those that look at times."""

FAR = 0.015
"""Seconds of a way there, and of the way back: far more than a busy machine takes."""

READS = 60


@contextlib.asynccontextmanager
async def checked(
    cluster: LocalCluster,
    make_manager: MakeManager,
    policy: type[BalancerPolicy],
    far: float = 0.0,
) -> AsyncGenerator[PoolManager]:
    """A manager that has checked each host some times; the last replica is that far away."""
    *_, last = cluster.replicas
    async with contextlib.AsyncExitStack() as stack:
        addresses: list[str] = []
        for node in cluster.nodes:
            proxy = FaultProxy(node, delay=far if node is last else 0.0)
            addresses.append((await stack.enter_async_context(proxy)).address)
        credentials = f"{cluster.user}:{cluster.password}"
        dsn = as_application(f"postgresql://{credentials}@{','.join(addresses)}/postgres")
        manager = await stack.enter_async_context(
            make_manager(dsn, balancer_policy=policy, refresh_timeout=10.0)
        )
        await manager.ready()
        for _ in range(RECENT):
            await manager.wait_next_pool_check()
        yield manager


async def shares(manager: PoolManager, cluster: LocalCluster) -> list[float]:
    """Of the reads, in the order of the replicas."""
    counts: Counter[str] = Counter()
    for _ in range(READS):
        counts[await reader(manager)] += 1
    return [counts[node.name] / READS for node in cluster.replicas]


@pytest.mark.parametrize("policy", POLICIES)
async def test_equal_replicas_all_get_a_share_of_the_reads(
    cluster: LocalCluster, make_manager: MakeManager, policy: type[BalancerPolicy]
) -> None:
    async with checked(cluster, make_manager, policy) as manager:
        found: list[list[float]] = []
        # A check that took long on a busy machine counts for a while.
        while not found or (min(found[-1]) < 0.1 and len(found) < 10):
            found.append(await shares(manager, cluster))
            await manager.wait_next_pool_check()
        assert min(found[-1]) >= 0.1, found


@pytest.mark.parametrize("policy", BY_TIME)
async def test_of_unequal_replicas_the_near_one_gets_more(
    cluster: LocalCluster, make_manager: MakeManager, policy: type[BalancerPolicy]
) -> None:
    async with checked(cluster, make_manager, policy, FAR) as manager:
        near, far = await shares(manager, cluster)
        assert near > 2 * far


@pytest.mark.parametrize("policy", [each for each in POLICIES if each not in BY_TIME])
async def test_to_who_looks_at_no_times_they_are_equal(
    cluster: LocalCluster, make_manager: MakeManager, policy: type[BalancerPolicy]
) -> None:
    async with checked(cluster, make_manager, policy, FAR) as manager:
        assert min(await shares(manager, cluster)) > 0.25


async def test_times_are_finer_than_the_clock_of_the_loop(
    cluster: LocalCluster, make_manager: MakeManager
) -> None:
    """Which on uvloop knows whole milliseconds."""
    manager = make_manager()
    await manager.ready()
    for _ in range(3):
        await manager.wait_next_pool_check()
    # Halves: the median may be the mean of two.
    halves = [
        (manager.get_last_response_time(pool_of(manager, node)) or 0) * 2000
        for node in cluster.nodes
    ]
    assert any(abs(time - round(time)) > 1e-3 for time in halves), halves
