"""Every public name on a real cluster, with each of the policies."""

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from pyscopg2.asyncpg import PoolManager
from pyscopg2.balancer_policy import (
    BalancerPolicy,
    GreedyBalancerPolicy,
    RandomWeightedBalancerPolicy,
    RoundRobinBalancerPolicy,
)
from pyscopg2.core.errors import AcquireTimeoutError, NotReadyError, PoolManagerClosedError
from pyscopg2.testing.cluster import LocalCluster

from .support import (
    MakeManager,
    as_application,
    backends_end,
    eventually,
    hold_all,
    pool_of,
    release_all,
    server_of,
    tasks_end,
)

POLICIES = [GreedyBalancerPolicy, RandomWeightedBalancerPolicy, RoundRobinBalancerPolicy]

REQUIRED = inspect.Parameter.empty

SIGNATURES: dict[str, dict[str, Any]] = {
    "__init__": {
        "dsn": REQUIRED,
        "acquire_timeout": 1.0,
        "refresh_delay": 1.0,
        "refresh_timeout": 1.0,
        "fallback_master": False,
        "master_as_replica_weight": 0.0,
        "balancer_policy": GreedyBalancerPolicy,
        "stopwatch_window_size": 128,
        "pool_factory_kwargs": None,
        "abandon_timeout": 10.0,
        "fencing": True,
    },
    "acquire": {
        "read_only": False,
        "fallback_master": None,
        "master_as_replica_weight": None,
        "timeout": None,
        "**kwargs": REQUIRED,
    },
    "acquire_master": {"timeout": None, "**kwargs": REQUIRED},
    "acquire_replica": {
        "fallback_master": None,
        "master_as_replica_weight": None,
        "timeout": None,
        "**kwargs": REQUIRED,
    },
    "release": {"connection": REQUIRED, "**kwargs": REQUIRED},
    "close": {"timeout": 10.0},
    "terminate": {},
    "ready": {"masters_count": None, "replicas_count": None, "timeout": 10},
    "wait_next_pool_check": {"timeout": 10},
    "wait_all_ready": {},
    "wait_masters_ready": {"masters_count": REQUIRED},
    "wait_replicas_ready": {"replicas_count": REQUIRED},
    "get_pool": {"read_only": REQUIRED, "fallback_master": None},
    "get_master_pools": {},
    "get_replica_pools": {"fallback_master": None},
    "pool_is_master": {"pool": REQUIRED},
    "pool_is_replica": {"pool": REQUIRED},
    "get_pool_freesize": {"pool": REQUIRED},
    "is_connection_closed": {"connection": REQUIRED},
    "acquire_from_pool": {"pool": REQUIRED, "**kwargs": REQUIRED},
    "release_to_pool": {"connection": REQUIRED, "pool": REQUIRED, "**kwargs": REQUIRED},
    "get_last_response_time": {"pool": REQUIRED},
    "register_connection": {"connection": REQUIRED, "pool": REQUIRED},
}

PROPERTIES = [
    "topology",
    "master_pool_count",
    "replica_pool_count",
    "available_pool_count",
    "pools",
    "dsn",
]


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> type[BalancerPolicy]:
    chosen: type[BalancerPolicy] = request.param
    return chosen


@pytest.fixture
async def manager(make_manager: MakeManager, policy: type[BalancerPolicy]) -> PoolManager:
    manager = make_manager(balancer_policy=policy)
    await manager.ready()
    return manager


def arguments(function: Callable[..., Any]) -> dict[str, Any]:
    """Names, in order, with their defaults."""
    return {
        f"**{name}" if parameter.kind is parameter.VAR_KEYWORD else name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    }


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_have_the_promised_names_order_and_defaults(name: str) -> None:
    promised = SIGNATURES[name]
    assert list(arguments(getattr(PoolManager, name)).items()) == list(promised.items())


def test_there_are_no_other_public_names() -> None:
    public = {name for name in dir(PoolManager) if not name.startswith("_")}
    assert public == SIGNATURES.keys() - {"__init__"} | {*PROPERTIES, "adapter"}


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties_are_read_only(name: str) -> None:
    manager = PoolManager("postgresql://host")
    with pytest.raises(AttributeError):
        setattr(manager, name, None)


async def test_unknown_arguments_are_a_type_error_at_once(manager: PoolManager) -> None:
    pool = await manager.get_pool(read_only=True)
    needed: dict[str, Any] = {"dsn": manager.dsn, "read_only": True, "pool": pool}
    needed |= {"masters_count": 1, "replicas_count": 1, "connection": None}
    methods: dict[str, Callable[..., Any]] = {name: getattr(manager, name) for name in SIGNATURES}
    methods["__init__"] = PoolManager
    async with asyncio.timeout(5):
        for name, method in methods.items():
            given = {key: needed[key] for key in SIGNATURES[name] if key in needed}
            if name.startswith("release"):
                given["connection"] = await manager.acquire_from_pool(pool)
            with pytest.raises(TypeError, match="nonsense"):
                await method(**given, nonsense=1)
    await eventually(lambda: manager.get_pool_freesize(pool) == 2, "nothing stays out")


# Taking and giving back


async def test_acquire_gives_a_master_and_read_only_a_replica(
    manager: PoolManager, cluster: LocalCluster
) -> None:
    replicas = {node.name for node in cluster.replicas}
    async with manager.acquire() as connection:
        assert await server_of(connection) == cluster.primary.name
    async with manager.acquire(read_only=True) as connection:
        assert await server_of(connection) in replicas
    async with manager.acquire_master() as connection:
        assert await server_of(connection) == cluster.primary.name
    async with manager.acquire_replica() as connection:
        assert await server_of(connection) in replicas


async def test_what_is_awaited_is_asyncpgs_own_and_goes_back_by_release(
    manager: PoolManager,
) -> None:
    pool = await manager.get_pool(read_only=False)
    for acquire in (manager.acquire, manager.acquire_master):
        connection = await acquire()
        assert isinstance(connection, asyncpg.pool.PoolConnectionProxy)
        assert not manager.is_connection_closed(connection)
        assert manager.get_pool_freesize(pool) == 1
        await manager.release(connection, timeout=5)
        assert manager.get_pool_freesize(pool) == 2
        assert manager.is_connection_closed(connection)


async def test_a_block_gives_its_connection_back_also_when_it_raises(manager: PoolManager) -> None:
    pool = await manager.get_pool(read_only=False)
    with pytest.raises(asyncpg.UndefinedTableError):
        async with manager.acquire() as connection:
            assert manager.get_pool_freesize(pool) == 1
            await connection.execute("TABLE nowhere")
    assert manager.get_pool_freesize(pool) == 2


async def test_release_refuses_what_it_does_not_know(
    manager: PoolManager, make_manager: MakeManager
) -> None:
    connection = await manager.acquire()
    await manager.release(connection)
    with pytest.raises(ValueError, match="given back already"):
        await manager.release(connection)
    foreign = make_manager()
    with pytest.raises(ValueError, match="not a connection of this manager"):
        await manager.release(await foreign.acquire())


async def test_reads_fall_back_to_a_master_only_when_told_so(
    make_manager: MakeManager, cluster: LocalCluster, policy: type[BalancerPolicy]
) -> None:
    dsn = as_application(cluster.primary.dsn)
    manager = make_manager(dsn, balancer_policy=policy)
    with pytest.raises(AcquireTimeoutError):
        await manager.acquire(read_only=True, timeout=0.3)
    async with manager.acquire(read_only=True, fallback_master=True) as connection:
        assert await server_of(connection) == cluster.primary.name
    async with manager.acquire_replica(fallback_master=True) as connection:
        assert await server_of(connection) == cluster.primary.name

    by_default = make_manager(dsn, balancer_policy=policy, fallback_master=True)
    async with by_default.acquire_replica() as connection:
        assert await server_of(connection) == cluster.primary.name
    with pytest.raises(AcquireTimeoutError):
        await by_default.acquire_replica(fallback_master=False, timeout=0.1)


async def test_the_fallback_ends_where_replicas_are(
    manager: PoolManager, cluster: LocalCluster
) -> None:
    held = await hold_all(manager, *cluster.replicas)
    with pytest.raises(AcquireTimeoutError):
        await manager.acquire_replica(fallback_master=True, timeout=0.1)
    await release_all(manager, held)


async def test_masters_serve_reads_with_the_given_probability(
    manager: PoolManager,
    cluster: LocalCluster,
    make_manager: MakeManager,
    policy: type[BalancerPolicy],
) -> None:
    random.seed(20)
    held = await hold_all(manager, *cluster.replicas)
    with pytest.raises(AcquireTimeoutError):
        await manager.acquire_replica(timeout=0.05)
    async with manager.acquire(read_only=True, master_as_replica_weight=1) as connection:
        assert await server_of(connection) == cluster.primary.name
    async with manager.acquire_replica(master_as_replica_weight=1) as connection:
        assert await server_of(connection) == cluster.primary.name
    await release_all(manager, held)

    half = make_manager(balancer_policy=policy, master_as_replica_weight=0.5)
    await half.ready()
    held = await hold_all(half, *cluster.replicas)
    async with half.acquire_master():
        pass  # opens the connection that a timeout of 0 leaves no time for
    served = 0
    for _ in range(40):
        try:
            async with half.acquire_replica(timeout=0):
                served += 1
        except AcquireTimeoutError:
            pass
    assert 8 <= served <= 32
    await release_all(half, held)


@pytest.mark.parametrize("weight", [-0.1, 1.1])
async def test_a_weight_outside_0_to_1_or_for_a_master_is_refused(
    make_manager: MakeManager, weight: float
) -> None:
    manager = make_manager()
    with pytest.raises(ValueError, match="master_as_replica_weight"):
        manager.acquire(read_only=True, master_as_replica_weight=weight)
    with pytest.raises(ValueError, match="master_as_replica_weight"):
        manager.acquire_replica(master_as_replica_weight=weight)
    with pytest.raises(ValueError, match="master_as_replica_weight"):
        make_manager(master_as_replica_weight=weight)
    with pytest.raises(ValueError, match="master_as_replica_weight"):
        manager.acquire(read_only=False, master_as_replica_weight=0.5)


async def test_a_pool_of_ones_own_choice(manager: PoolManager, cluster: LocalCluster) -> None:
    for node in cluster.nodes:
        pool = pool_of(manager, node)
        async with manager.acquire_from_pool(pool) as connection:
            assert await server_of(connection) == node.name
            assert manager.get_pool_freesize(pool) == 1
        assert manager.get_pool_freesize(pool) == 2

        connection = await manager.acquire_from_pool(pool)
        assert await server_of(connection) == node.name
        await manager.release_to_pool(connection, pool, timeout=5)
        assert manager.get_pool_freesize(pool) == 2
        with pytest.raises(ValueError, match="given back already"):
            await manager.release_to_pool(connection, pool)


async def test_release_to_pool_refuses_the_connection_of_another_pool(
    manager: PoolManager, cluster: LocalCluster
) -> None:
    first, second = (pool_of(manager, node) for node in cluster.replicas)
    connection = await manager.acquire_from_pool(first)
    with pytest.raises(ValueError, match="not a connection of this pool"):
        await manager.release_to_pool(connection, second)
    await manager.release_to_pool(connection, first)


async def test_a_connection_taken_by_hand_can_be_registered(manager: PoolManager) -> None:
    pool = await manager.get_pool(read_only=False)
    connection = await pool.acquire()
    manager.register_connection(connection, pool)
    assert manager.get_pool_freesize(pool) == 1
    manager.register_connection(connection, pool)
    assert manager.get_pool_freesize(pool) == 1
    await manager.release(connection)
    assert manager.get_pool_freesize(pool) == 2

    connection = await manager.acquire_from_pool(pool)
    manager.register_connection(connection, pool)
    assert manager.get_pool_freesize(pool) == 1
    await manager.release(connection)
    assert manager.get_pool_freesize(pool) == 2


async def test_a_closed_connection_is_known_as_closed(manager: PoolManager) -> None:
    async with manager.acquire() as connection:
        assert manager.is_connection_closed(connection) is False
        await connection.close()
        assert manager.is_connection_closed(connection) is True


# Pools


async def test_pools_by_role(manager: PoolManager, cluster: LocalCluster) -> None:
    master = pool_of(manager, cluster.primary)
    replicas = [pool_of(manager, node) for node in cluster.replicas]
    assert await manager.get_master_pools() == [master]
    assert await manager.get_replica_pools() == replicas
    assert await manager.get_replica_pools(fallback_master=True) == replicas
    assert await manager.get_pool(read_only=False) is master
    assert manager.pools == tuple(pool_of(manager, node) for node in cluster.nodes)
    for pool in manager.pools:
        assert isinstance(pool, asyncpg.Pool)
        assert manager.pool_is_master(pool) is (pool is master)
        assert manager.pool_is_replica(pool) is (pool is not master)
    assert manager.master_pool_count == 1
    assert manager.replica_pool_count == 2
    assert manager.available_pool_count == 3


async def test_get_pool_is_the_eligible_one_with_the_most_free_connections(
    manager: PoolManager, cluster: LocalCluster
) -> None:
    for busy, idle in (cluster.replicas, reversed(cluster.replicas)):
        async with manager.acquire_from_pool(pool_of(manager, busy)):
            assert await manager.get_pool(read_only=True) is pool_of(manager, idle)


async def test_get_pool_waits_for_one_and_falls_back_when_told(
    make_manager: MakeManager, cluster: LocalCluster, policy: type[BalancerPolicy]
) -> None:
    manager = make_manager(as_application(cluster.primary.dsn), balancer_policy=policy)
    assert manager.pools == ()
    assert manager.available_pool_count == 0
    (master,) = await manager.get_master_pools()
    assert await manager.get_pool(read_only=True, fallback_master=True) is master
    assert await manager.get_replica_pools(fallback_master=True) == [master]
    for waiting in (manager.get_pool(read_only=True), manager.get_replica_pools()):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await waiting


async def test_free_size_and_response_time(manager: PoolManager) -> None:
    for pool in manager.pools:
        assert manager.get_pool_freesize(pool) == 2
        median = manager.get_last_response_time(pool)
        assert median is not None
        assert 0 < median < 1


async def test_what_is_asked_of_an_unknown_pool(
    manager: PoolManager, cluster: LocalCluster
) -> None:
    async with asyncpg.create_pool(cluster.primary.dsn, min_size=1, max_size=1) as other:
        assert not manager.pool_is_master(other)
        assert not manager.pool_is_replica(other)
        for ask in (
            manager.get_pool_freesize,
            manager.get_last_response_time,
            manager.acquire_from_pool,
        ):
            with pytest.raises(ValueError, match="not a pool of this manager"):
                ask(other)
        async with other.acquire() as connection:
            with pytest.raises(ValueError, match="not a pool of this manager"):
                manager.register_connection(connection, other)


# Waiting


async def test_ready_counts_and_refuses_nonsense(manager: PoolManager) -> None:
    await manager.ready()
    await manager.ready(masters_count=1, replicas_count=2)
    await manager.ready(0, 0, timeout=0)
    for masters, replicas in ((1, None), (None, 1), (-1, 1), (1, -1)):
        with pytest.raises(ValueError, match=r"masters_count|replicas_count"):
            await manager.ready(masters, replicas)
    with pytest.raises(NotReadyError, match="master") as caught:
        await manager.ready(masters_count=2, replicas_count=1, timeout=0.2)
    assert isinstance(caught.value, TimeoutError)


async def test_waiting_for_counts(manager: PoolManager) -> None:
    async with asyncio.timeout(10):
        await manager.wait_all_ready()
        await manager.wait_masters_ready(1)
        await manager.wait_replicas_ready(2)
    for waiting in (manager.wait_masters_ready(2), manager.wait_replicas_ready(3)):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await waiting
    for refused in (manager.wait_masters_ready(-1), manager.wait_replicas_ready(-1)):
        with pytest.raises(ValueError, match="must not be negative"):
            await refused


async def test_the_next_check_is_one_that_began_after_the_call(manager: PoolManager) -> None:
    before = {host.address: host.serial for host in manager.topology}
    await manager.wait_next_pool_check()
    assert all(host.serial > before[host.address] for host in manager.topology)
    with pytest.raises(NotReadyError):
        await manager.wait_next_pool_check(timeout=0)


async def test_the_topology_names_every_host_in_the_order_of_the_dsn(
    manager: PoolManager, cluster: LocalCluster
) -> None:
    assert [host.address for host in manager.topology] == [n.address for n in cluster.nodes]
    for node in cluster.nodes:
        role = "master" if node is cluster.primary else "replica"
        assert str(manager.topology[node.address]) == f"{node.address} {role}"
    assert manager.dsn == as_application(cluster.dsn)
    assert cluster.password not in repr(manager) + repr(manager.topology)


# The whole


async def test_a_policy_uses_both_replicas(manager: PoolManager, cluster: LocalCluster) -> None:
    served = Counter[str]()
    for _ in range(60):
        async with manager.acquire_replica() as connection:
            served[await server_of(connection)] += 1
    assert served.keys() == {node.name for node in cluster.replicas}


async def test_close_refuses_what_comes_after_and_may_be_called_twice(
    manager: PoolManager, cluster: LocalCluster
) -> None:
    pool = await manager.get_pool(read_only=False)
    await manager.close()
    await manager.close(timeout=0)
    await manager.terminate()
    for use in (
        manager.acquire,
        manager.acquire_replica,
        manager.ready,
        manager.wait_next_pool_check,
        manager.wait_all_ready,
        manager.get_master_pools,
    ):
        with pytest.raises(PoolManagerClosedError):
            await use()
    assert pool.is_closing()
    await tasks_end()
    await backends_end(cluster)


async def test_a_manager_closes_with_its_block(
    make_manager: MakeManager, cluster: LocalCluster, policy: type[BalancerPolicy]
) -> None:
    async with make_manager(balancer_policy=policy) as manager, manager.acquire() as connection:
        assert await server_of(connection) == cluster.primary.name
    with pytest.raises(PoolManagerClosedError):
        await manager.acquire()
    await tasks_end()
    await backends_end(cluster)
