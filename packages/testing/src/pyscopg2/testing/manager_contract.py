"""What every `PoolManager` must do, as tests: subclass `ManagerContract` with one fixture.

::

    class TestMyPoolManager(ManagerContract[MyPool, MyConnection]):
        @pytest.fixture
        def subject(self) -> ManagerSubject[MyPool, MyConnection]:
            return ManagerSubject(PoolManager, driver=SUBJECT, errors=(MyError, OSError))

`AdapterContract` holds the adapter to its Protocol, verb by verb. These tests see what becomes of
it in its users' hands: the whole public surface of `BasePoolManager` on a real cluster of a primary
and two replicas (`LocalCluster`), by each of the balancer policies where those matter, while hosts
are killed, promoted, restarted and frozen. Each runs in an event loop of its own, and leaves
neither a task nor a connection.
"""

import asyncio
import inspect
import re
import subprocess
import sys
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic

import pytest

from pyscopg2.balancer_policy import (
    BalancerPolicy,
    GreedyBalancerPolicy,
    RandomWeightedBalancerPolicy,
    RoundRobinBalancerPolicy,
)
from pyscopg2.base import BasePoolManager
from pyscopg2.core.acquire import AcquireContext
from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.core.errors import AcquireTimeoutError, NotReadyError, PoolManagerClosedError
from pyscopg2.core.topology import Role
from pyscopg2.testing.cluster import ClusterError, LocalCluster, Node
from pyscopg2.testing.contract import Subject

__all__ = ("ManagerContract", "ManagerSubject")

WITHIN = 1.0
"""Seconds from a new master's accepting writes until writes go through again."""

SOON = 5.0
"""Seconds within which what happens at once has happened, on however slow a machine."""

PATIENCE = 30.0
"""Seconds after which a condition is taken for one that never comes."""

OUTAGE = 2.0
"""Seconds that a restarted host is down: enough for a driver's own intervals to grow."""

SIZE = 2
"""Connections that users may have, per host."""

POLICIES = (GreedyBalancerPolicy, RandomWeightedBalancerPolicy, RoundRobinBalancerPolicy)

ACCEPTS_WRITES = re.compile(
    r"^(\d+\.\d+) .*(?:archive recovery complete|system is ready to accept connections)",
    re.MULTILINE,
)
"""Of a server's log: where a promotion, or a start, is over."""

PROGRAM = """
import asyncio
import importlib
import sys

module, name, dsn = sys.argv[1:]
PoolManager = getattr(importlib.import_module(module), name)


async def main():
    manager = PoolManager(dsn, acquire_timeout=30)
    await manager.ready()
    held = await manager.acquire_master()
    print("ready", flush=True)
    await asyncio.to_thread(input)
    return manager, held


asyncio.run(main())
print("done", flush=True)
"""
"""It closes nothing and gives nothing back."""

each_policy = pytest.mark.parametrize("policy", POLICIES)


async def _nothing_to_commit(_: object) -> None:
    pass


@dataclass(frozen=True)
class ManagerSubject(Generic[PoolT, ConnT]):
    """The manager's class, and what its tests have to know of its driver."""

    manager: type[BasePoolManager[PoolT, ConnT]]
    driver: Subject[PoolT, ConnT]
    """The same as for `AdapterContract`."""
    errors: tuple[type[Exception], ...]
    """What the driver raises where a connection broke, or is refused."""
    commit: Callable[[ConnT], Awaitable[object]] = _nothing_to_commit
    """Commits what `Subject.execute` did, where that does not do it."""
    scheme: str = "postgresql"
    """Of the DSNs."""
    acquire_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the driver's acquire takes, if anything."""
    release_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the driver's release takes, if anything."""
    noise: tuple[str, ...] = ()
    """Words of what the driver itself may tell the event loop's exception handler, or stderr."""


class ManagerContract(Generic[PoolT, ConnT]):
    """The contract; give it the fixture `subject`."""

    # The servers

    @pytest.fixture(scope="class")
    @classmethod
    def manager_cluster(cls) -> Iterator[LocalCluster]:
        settings = {
            "log_line_prefix": "%n ",  # seconds since 1970
            # A server that works on a query does not look whether its client is still there.
            "client_connection_check_interval": "100ms",
        }
        with LocalCluster(replicas=2, settings=settings) as cluster:
            cluster.psql(cluster.primary, "CREATE TABLE surface (item text)")
            cluster.wait_streaming()
            yield cluster
            for node in cluster.nodes:
                _await_no_backends(cluster, node)

    @pytest.fixture
    def desk(
        self,
        request: pytest.FixtureRequest,
        subject: ManagerSubject[PoolT, ConnT],
        manager_cluster: LocalCluster,
    ) -> "Desk[PoolT, ConnT]":
        """All servers are well; the test leaves them so."""
        return Desk(subject, manager_cluster, request.node.name)

    @pytest.fixture
    def broken_desk(self, desk: "Desk[PoolT, ConnT]") -> "Iterator[Desk[PoolT, ConnT]]":
        """For tests that kill, freeze and promote; the servers are well again afterwards."""
        yield desk
        _heal(desk.cluster)

    # Names and arguments

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

    def test_a_manager_may_be_made_before_a_loop_runs(self, desk: "Desk[PoolT, ConnT]") -> None:
        manager = desk.make()
        assert manager.pools == ()
        assert manager.available_pool_count == 0

        async def main() -> None:
            async with manager:
                await manager.ready()
                await manager.release(await manager.acquire())

        desk.run(main())

    def test_what_the_driver_does_not_know_is_a_type_error_at_once(
        self, desk: "Desk[PoolT, ConnT]"
    ) -> None:
        with pytest.raises(TypeError):
            desk.make(pool_factory_kwargs={"no_such_option": 1})

        async def main() -> None:
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

        desk.run(main())

    # Taking and giving back

    @each_policy
    def test_acquire_gives_the_role_that_was_asked_for(
        self, desk: "Desk[PoolT, ConnT]", policy: type[BalancerPolicy]
    ) -> None:
        async def main() -> None:
            async with desk.manager(balancer_policy=policy) as manager:
                replicas = {node.name for node in desk.cluster.replicas}
                masters = {desk.cluster.primary.name}
                asked: list[tuple[Callable[[], AcquireContext[PoolT, ConnT]], set[str]]] = [
                    (manager.acquire, masters),
                    (partial(manager.acquire, True), replicas),
                    (manager.acquire_master, masters),
                    (manager.acquire_replica, replicas),
                ]
                for acquire, names in asked:
                    async with acquire() as connection:
                        name = await desk.server_of(manager, connection)
                        assert name in names
                        pool = desk.pool_of(manager, desk.node(name))
                        assert not manager.is_connection_closed(connection)
                        assert manager.get_pool_freesize(pool) == SIZE - 1
                    assert manager.get_pool_freesize(pool) == SIZE
                    connection = await acquire()
                    name = await desk.server_of(manager, connection)
                    assert name in names
                    pool = desk.pool_of(manager, desk.node(name))
                    assert manager.get_pool_freesize(pool) == SIZE - 1
                    await manager.release(connection, **desk.subject.release_kwargs)
                    assert manager.get_pool_freesize(pool) == SIZE

        desk.run(main())

    @each_policy
    def test_a_policy_uses_both_replicas_as_it_says(
        self, desk: "Desk[PoolT, ConnT]", policy: type[BalancerPolicy]
    ) -> None:
        async def main() -> None:
            async with desk.manager(balancer_policy=policy) as manager:
                first, second = desk.cluster.replicas
                served: list[str] = []

                async def both_have_served() -> bool:
                    served.append(await desk.reader(manager))
                    return {first.name, second.name} == set(served)

                await desk.until(both_have_served, "both replicas serve")
                served = [await desk.reader(manager) for _ in range(6)]
                if issubclass(policy, RoundRobinBalancerPolicy):
                    assert sorted(served[:2]) == sorted([first.name, second.name])
                    assert served == served[:2] * 3
                if issubclass(policy, GreedyBalancerPolicy):
                    async with manager.acquire_from_pool(desk.pool_of(manager, first)):
                        served = [await desk.reader(manager) for _ in range(6)]
                        assert served == [second.name] * 6

        desk.run(main())

    @each_policy
    def test_reads_fall_back_to_a_master_only_when_told_so(
        self, desk: "Desk[PoolT, ConnT]", policy: type[BalancerPolicy]
    ) -> None:
        primary = desk.cluster.primary

        async def main() -> None:
            async with desk.manager(primary.dsn, balancer_policy=policy) as manager:
                with pytest.raises(AcquireTimeoutError):
                    await manager.acquire(read_only=True, timeout=0.05)
                for acquiring in (
                    manager.acquire(read_only=True, fallback_master=True),
                    manager.acquire_replica(fallback_master=True),
                ):
                    async with acquiring as connection:
                        assert await desk.server_of(manager, connection) == primary.name
            async with desk.manager(
                primary.dsn, balancer_policy=policy, fallback_master=True
            ) as manager:
                assert await desk.reader(manager) == primary.name
                with pytest.raises(AcquireTimeoutError):
                    await manager.acquire_replica(fallback_master=False, timeout=0.05)
            async with desk.manager(balancer_policy=policy, fallback_master=True) as manager:
                # Replicas that are busy are there.
                held = await desk.hold_all(manager, *desk.cluster.replicas)
                with pytest.raises(AcquireTimeoutError):
                    await manager.acquire_replica(timeout=0.05)
                await desk.release_all(manager, held)

        desk.run(main())

    @each_policy
    def test_masters_serve_reads_by_their_weight(
        self, desk: "Desk[PoolT, ConnT]", policy: type[BalancerPolicy]
    ) -> None:
        primary = desk.cluster.primary

        async def main() -> None:
            async with desk.manager(
                balancer_policy=policy, master_as_replica_weight=0.5
            ) as manager:
                held = await desk.hold_all(manager, *desk.cluster.replicas)
                for acquiring in (
                    manager.acquire(read_only=True, master_as_replica_weight=1),
                    manager.acquire_replica(master_as_replica_weight=1.0),
                ):
                    async with acquiring as connection:
                        assert await desk.server_of(manager, connection) == primary.name

                with pytest.raises(AcquireTimeoutError):
                    await manager.acquire_replica(master_as_replica_weight=0, timeout=0.02)
                # The manager's own weight. A writer comes after all of them, and the line is
                # served in order: by then those who may read from the master have done so.
                reading = [asyncio.ensure_future(desk.reader(manager)) for _ in range(40)]
                await asyncio.sleep(0)
                await desk.writer(manager)
                # Bad luck breaks it once in five million runs.
                assert 4 < sum(each.done() for each in reading) < 36
                await desk.release_all(manager, held)
                await asyncio.gather(*reading)

        desk.run(main())

    def test_arguments_outside_their_range_are_refused(self, desk: "Desk[PoolT, ConnT]") -> None:
        async def main() -> None:
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

        desk.run(main())

    def test_who_waits_gets_the_place_that_frees_first(self, desk: "Desk[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with desk.manager() as manager:
                held = await desk.hold_all(manager, *desk.cluster.replicas)
                with pytest.raises(AcquireTimeoutError) as caught:
                    await manager.acquire_replica(timeout=0.05)
                assert isinstance(caught.value, TimeoutError)
                for node in desk.cluster.nodes:
                    assert str(manager.topology[node.address]) in str(caught.value)
                await desk.release_all(manager, held)
                for index, node in ((0, desk.cluster.replicas[0]), (-1, desk.cluster.replicas[-1])):
                    held = await desk.hold_all(manager, *desk.cluster.replicas)
                    waiting = asyncio.ensure_future(desk.reader(manager))
                    await asyncio.sleep(0)  # its first step ends in the line
                    await manager.release(held.pop(index))
                    assert await waiting == node.name
                    await desk.release_all(manager, held)

        desk.run(main())

    def test_release_refuses_what_it_does_not_know(self, desk: "Desk[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with desk.manager() as manager, desk.manager() as other:
                connection = await manager.acquire()
                with pytest.raises(ValueError, match="not a connection of this manager"):
                    await other.release(connection)
                await manager.release(connection)
                with pytest.raises(ValueError, match="given back already"):
                    await manager.release(connection)

        desk.run(main())

    def test_a_pool_of_ones_own_choice(self, desk: "Desk[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with desk.manager() as manager:
                for node in desk.cluster.nodes:
                    pool = desk.pool_of(manager, node)
                    kwargs = desk.subject.acquire_kwargs
                    async with manager.acquire_from_pool(pool, **kwargs) as connection:
                        assert await desk.server_of(manager, connection) == node.name
                        assert manager.get_pool_freesize(pool) == SIZE - 1
                    connection = await manager.acquire_from_pool(pool, **kwargs)
                    assert await desk.server_of(manager, connection) == node.name
                    assert manager.get_pool_freesize(pool) == SIZE - 1
                    other = next(each for each in manager.pools if each is not pool)
                    with pytest.raises(ValueError, match="not a connection of this pool"):
                        await manager.release_to_pool(connection, other)
                    await manager.release_to_pool(connection, pool, **desk.subject.release_kwargs)
                    assert manager.get_pool_freesize(pool) == SIZE
                    with pytest.raises(ValueError, match="given back already"):
                        await manager.release_to_pool(connection, pool)

        desk.run(main())

    def test_a_connection_taken_by_hand_can_be_registered(self, desk: "Desk[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with desk.manager() as manager:
                pool = await manager.get_pool(read_only=False)
                for by_hand in (True, False):
                    if by_hand:
                        connection = await manager.adapter.acquire_from_pool(pool)
                    else:
                        connection = await manager.acquire_from_pool(pool)
                    for _ in range(2):
                        manager.register_connection(connection, pool)
                        assert manager.get_pool_freesize(pool) == SIZE - 1
                    await manager.release(connection)
                    assert manager.get_pool_freesize(pool) == SIZE

        desk.run(main())

    def test_a_connection_that_breaks_costs_its_user_one_error(
        self, desk: "Desk[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with desk.manager() as manager:
                pool = await manager.get_pool(read_only=False)
                for _ in range(SIZE + 1):
                    with pytest.raises(desk.subject.errors):
                        async with manager.acquire() as connection:
                            assert not manager.is_connection_closed(connection)
                            await desk.end_backend(manager, connection)
                            await desk.insert(connection, "broken")
                assert await desk.writer(manager) == desk.cluster.primary.name
                assert manager.pool_is_master(pool)
                await desk.until(lambda: manager.get_pool_freesize(pool) == SIZE, "all is back")
                connection = await manager.acquire()
                manager.adapter.terminate_connection(connection)
                assert manager.is_connection_closed(connection)
                await manager.release(connection)

        desk.run(main())

    # Blocks

    def test_a_block_ends_as_the_drivers_own(self, desk: "Desk[PoolT, ConnT]") -> None:
        driver = desk.subject.driver

        async def main() -> None:
            async with desk.manager() as manager:
                async with manager.acquire() as connection:
                    await desk.insert(connection, "ended")
                with pytest.raises(ZeroDivisionError):
                    async with manager.acquire() as connection:
                        await desk.insert(connection, "raised")
                        raise ZeroDivisionError
                connection = await manager.acquire()
                await desk.insert(connection, "awaited")
                await manager.release(connection)
                async with manager.acquire() as connection:
                    await desk.insert(connection, "committed")
                    await desk.subject.commit(connection)
                assert desk.has("ended") is (driver.commits or driver.autocommit)
                assert desk.has("raised") is driver.autocommit
                assert desk.has("awaited") is driver.autocommit
                assert desk.has("committed")
                pool = await manager.get_pool(read_only=False)
                assert manager.get_pool_freesize(pool) == SIZE

        desk.run(main())

    def test_a_block_whose_connection_was_terminated_never_looks_committed(
        self, desk: "Desk[PoolT, ConnT]"
    ) -> None:
        driver = desk.subject.driver

        async def main() -> None:
            for end in ("manager", "backend"):
                failed = False
                async with desk.manager() as manager:
                    try:
                        async with manager.acquire() as connection:
                            await desk.insert(connection, end)
                            if end == "manager":
                                await manager.terminate()
                            else:
                                await desk.end_backend(manager, connection)
                    except desk.subject.errors:
                        failed = True
                assert failed or not driver.commits
                assert desk.has(end) is driver.autocommit

        desk.run(main())

    # Pools

    def test_pools_and_their_roles(self, desk: "Desk[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with desk.manager() as manager:
                master = desk.pool_of(manager, desk.cluster.primary)
                replicas = [desk.pool_of(manager, node) for node in desk.cluster.replicas]
                everyone = tuple(desk.pool_of(manager, node) for node in desk.cluster.nodes)
                assert await manager.get_master_pools() == [master]
                assert await manager.get_replica_pools() == replicas
                assert await manager.get_replica_pools(fallback_master=True) == replicas
                assert await manager.get_pool(False) is master
                assert manager.pools == everyone
                assert manager.master_pool_count == 1
                assert manager.replica_pool_count == 2
                assert manager.available_pool_count == 3
                for pool in everyone:
                    assert manager.pool_is_master(pool) is (pool is master)
                    assert manager.pool_is_replica(pool) is (pool is not master)
                    assert manager.get_pool_freesize(pool) == SIZE
                    median = manager.get_last_response_time(pool)
                    assert median is not None
                    assert 0 < median < SOON
                for busy, idle in (replicas, reversed(replicas)):
                    async with manager.acquire_from_pool(busy):
                        assert await manager.get_pool(read_only=True) is idle

        desk.run(main())

    def test_get_pool_waits_for_one_and_falls_back_when_told(
        self, desk: "Desk[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with desk.manager(desk.cluster.primary.dsn, ready=False) as manager:
                assert manager.pools == ()
                (master,) = await manager.get_master_pools()
                assert await manager.get_pool(True, True) is master
                assert await manager.get_replica_pools(True) == [master]
                for waiting in (manager.get_pool(read_only=True), manager.get_replica_pools()):
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(waiting, 0.02)

        desk.run(main())

    def test_what_is_asked_of_another_managers_pool(self, desk: "Desk[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with desk.manager() as manager, desk.manager() as stranger:
                pool = await stranger.get_pool(read_only=False)
                async with stranger.acquire_from_pool(pool) as connection:
                    desk.refuses(manager, pool, connection)

        desk.run(main())

    def test_the_topology_and_the_dsn(self, desk: "Desk[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with desk.manager() as manager:
                hosts = [host.address for host in manager.topology]
                assert hosts == [node.address for node in desk.cluster.nodes]
                for node in desk.cluster.nodes:
                    role = "master" if node is desk.cluster.primary else "replica"
                    assert str(manager.topology[node.address]) == f"{node.address} {role}"
                assert manager.dsn == desk.dsn()
                assert desk.cluster.password not in repr(manager) + repr(manager.topology)

        desk.run(main())

    def test_full_load_never_costs_a_host_its_place(self, desk: "Desk[PoolT, ConnT]") -> None:
        reserved = "query LIKE 'SELECT concat_ws(%'"

        async def main() -> None:
            async with desk.manager(refresh_delay=0.1) as manager:
                before = manager.pools
                held = await desk.hold_all(manager, desk.cluster.primary)
                assert len(held) == SIZE
                waiting = asyncio.ensure_future(desk.writer(manager))
                for _ in range(2):
                    (pid,) = await desk.backends(f"AND {reserved}")
                    await desk.psql(f"SELECT pg_terminate_backend({pid}, {SOON:.0f}000)")
                    await manager.wait_next_pool_check()
                    assert manager.pools == before
                    assert pid not in await desk.backends(f"AND {reserved}")
                assert len(await desk.backends()) == SIZE + 1
                assert not waiting.done()
                await desk.release_all(manager, held)
                assert await waiting == desk.cluster.primary.name

        desk.run(main())

    # Waiting for hosts

    def test_waiting_for_hosts(self, desk: "Desk[PoolT, ConnT]") -> None:
        async def main() -> None:
            async with desk.manager(ready=False) as manager, asyncio.timeout(PATIENCE):
                await manager.ready()
                await manager.ready(1, 2)
                await manager.ready(masters_count=0, replicas_count=0, timeout=0)
                await manager.wait_all_ready()
                await manager.wait_masters_ready(1)
                await manager.wait_replicas_ready(2)
                before = {host.address: host.serial for host in manager.topology}
                await manager.wait_next_pool_check()
                assert all(host.serial > before[host.address] for host in manager.topology)
                with pytest.raises(NotReadyError) as caught:
                    await manager.ready(masters_count=2, replicas_count=1, timeout=0.02)
                assert isinstance(caught.value, TimeoutError)
                with pytest.raises(NotReadyError):
                    await manager.wait_next_pool_check(timeout=0)
                for waiting in (manager.wait_masters_ready(2), manager.wait_replicas_ready(3)):
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(waiting, 0.02)

        desk.run(main())

    @pytest.mark.parametrize("wrong", ["password", "database"])
    def test_errors_that_cannot_heal_are_told_at_once(
        self, desk: "Desk[PoolT, ConnT]", wrong: str
    ) -> None:
        cluster = desk.cluster
        if wrong == "password":
            dsn = cluster.dsn.replace(cluster.password, "wrong")
        else:
            dsn = cluster.dsn.removesuffix(cluster.database) + "wrong"

        async def main() -> None:
            async with desk.manager(dsn, ready=False, acquire_timeout=0.3) as manager:
                async with asyncio.timeout(PATIENCE):
                    with pytest.raises(NotReadyError) as caught:
                        await manager.ready(timeout=2 * PATIENCE)
                assert isinstance(caught.value.__cause__, desk.subject.errors)
                with pytest.raises(AcquireTimeoutError) as late:
                    await manager.acquire()
                assert isinstance(late.value.__cause__, desk.subject.errors)

        desk.run(main())

    # Ends

    def test_close_waits_for_what_is_out_and_refuses_the_rest(
        self, desk: "Desk[PoolT, ConnT]"
    ) -> None:
        async def main() -> None:
            async with desk.manager() as manager:
                pool = await manager.get_pool(read_only=False)
                held = await desk.hold_all(manager, desk.cluster.primary)
                waiting = asyncio.ensure_future(desk.writer(manager))
                await asyncio.sleep(0)
                closing = asyncio.ensure_future(manager.close())
                with pytest.raises(PoolManagerClosedError):
                    await waiting
                for use in (manager.acquire, manager.acquire_master, manager.acquire_replica):
                    with pytest.raises(PoolManagerClosedError):
                        await use()
                for connection in held:
                    assert not closing.done()
                    assert await desk.server_of(manager, connection) == desk.cluster.primary.name
                    await manager.release(connection)
                await asyncio.wait_for(closing, SOON)
                await manager.close(timeout=0)
                await manager.terminate()
                assert manager.pools == ()
                with pytest.raises(PoolManagerClosedError):
                    await manager.acquire_from_pool(pool)
                for wait in (
                    manager.ready,
                    manager.wait_next_pool_check,
                    manager.wait_all_ready,
                    manager.get_master_pools,
                    manager.get_replica_pools,
                ):
                    with pytest.raises(PoolManagerClosedError):
                        await wait()

        desk.run(main())

    @pytest.mark.parametrize("how", ["close", "terminate", "block"])
    def test_what_is_still_out_is_terminated(self, desk: "Desk[PoolT, ConnT]", how: str) -> None:
        async def main() -> None:
            async with desk.manager() as manager:
                connection, idle = [await manager.acquire() for _ in range(2)]
                query = desk.start_sleeping(connection)
                await desk.sleeps()
                async with asyncio.timeout(SOON):
                    if how == "close":
                        await manager.close(timeout=0.05)
                    elif how == "terminate":
                        await manager.terminate()
                    else:
                        with pytest.raises(ZeroDivisionError):
                            async with manager:
                                raise ZeroDivisionError
                    with pytest.raises(desk.subject.errors):
                        await query
                for each in (connection, idle):
                    assert manager.is_connection_closed(each)
                    await manager.release(each)

        desk.run(main())

    @pytest.mark.parametrize("frozen", [False, True], ids=["well", "frozen"])
    def test_a_program_that_closes_nothing_ends_at_once(
        self, broken_desk: "Desk[PoolT, ConnT]", frozen: bool
    ) -> None:
        desk = broken_desk
        manager = desk.subject.manager
        names = (manager.__module__, manager.__qualname__, desk.dsn())
        with subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-c", PROGRAM, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if frozen:
                desk.cluster.freeze(desk.cluster.primary)
            try:
                out, err = process.communicate("\n", timeout=SOON)
            finally:
                process.kill()
        assert (process.returncode, out, desk.without_noise([err])) == (0, "done\n", [])

    # Hosts that go and come

    def test_writes_go_through_within_a_second_of_a_promotion(
        self, broken_desk: "Desk[PoolT, ConnT]"
    ) -> None:
        desk = broken_desk

        async def fail_over(manager: BasePoolManager[PoolT, ConnT]) -> float:
            old, new = desk.cluster.primary, desk.cluster.replicas[0]
            assert await desk.writer(manager) == old.name
            await asyncio.to_thread(desk.cluster.kill, old)
            return await desk.outage(manager, new, lambda: desk.cluster.promote(new))

        async def main() -> None:
            # The regular checks are no help here.
            async with desk.manager(refresh_delay=PATIENCE, refresh_timeout=1.0) as manager:
                outages = [await fail_over(manager)]
                # Nobody's fault on a machine that does other things, too: never thrice, though.
                while outages[-1] > WITHIN and len(outages) < 3:
                    await asyncio.to_thread(_heal, desk.cluster)
                    await manager.ready(1, 2, PATIENCE)
                    outages.append(await fail_over(manager))
                assert min(outages) <= WITHIN, outages
                assert desk.has("written")

        desk.run(main())

    def test_writes_go_through_within_a_second_of_a_restart_and_on_a_new_pool(
        self, broken_desk: "Desk[PoolT, ConnT]"
    ) -> None:
        desk = broken_desk
        primary = desk.cluster.primary

        def restart() -> None:
            time.sleep(OUTAGE)
            desk.cluster.start(primary)

        async def main() -> None:
            async with desk.manager(refresh_delay=PATIENCE, refresh_timeout=1.0) as manager:
                outages: list[float] = []
                while not outages or (outages[-1] > WITHIN and len(outages) < 3):
                    await manager.ready(1, 2, PATIENCE)
                    pool, held = desk.pool_of(manager, primary), await manager.acquire()
                    await asyncio.to_thread(desk.cluster.kill, primary)
                    outages.append(await desk.outage(manager, primary, restart))
                    assert desk.pool_of(manager, primary) is not pool
                    desk.refuses(manager, pool)
                    with pytest.raises(desk.subject.errors):
                        await desk.insert(held, "lost")
                    assert manager.is_connection_closed(held)
                    await manager.release(held)
                assert min(outages) <= WITHIN, outages

        desk.run(main())

    def test_a_promotion_keeps_a_pool_and_retires_the_superseded_one(
        self, broken_desk: "Desk[PoolT, ConnT]"
    ) -> None:
        desk = broken_desk
        old, new = desk.cluster.primary, desk.cluster.replicas[0]

        async def main() -> None:
            async with desk.manager() as manager:
                kept, retired = desk.pool_of(manager, new), desk.pool_of(manager, old)
                ours = await manager.acquire_from_pool(kept)
                idle, busy = [await manager.acquire() for _ in range(2)]
                query = desk.start_sleeping(busy)
                await desk.sleeps()
                await asyncio.to_thread(desk.cluster.promote, new)
                await desk.becomes(manager, old, Role.SUPERSEDED)
                await desk.becomes(manager, new, Role.MASTER)

                assert await manager.get_master_pools() == [kept]
                assert not manager.is_connection_closed(ours)
                await desk.insert(ours, "kept")
                await desk.subject.commit(ours)
                await manager.release(ours)
                assert desk.has("kept")
                assert {await desk.writer(manager) for _ in range(5)} == {new.name}

                async with asyncio.timeout(SOON):
                    with pytest.raises(desk.subject.errors):
                        await query
                for lost in (idle, busy):
                    assert manager.is_connection_closed(lost)
                    await manager.release(lost)
                # It is retired by the next check of its host, which comes at once.
                await desk.until(lambda: not desk.knows(manager, retired), "the pool is retired")
                desk.refuses(manager, retired)
                assert old.name not in {await desk.reader(manager) for _ in range(5)}

                await asyncio.to_thread(desk.cluster.rejoin, old)
                await desk.becomes(manager, old, Role.REPLICA)
                again = desk.pool_of(manager, old)
                assert again is not retired
                async with manager.acquire_from_pool(again) as connection:
                    assert await desk.server_of(manager, connection) == old.name

        desk.run(main())

    def test_a_retired_pool_ends_with_its_last_checkout(
        self, broken_desk: "Desk[PoolT, ConnT]"
    ) -> None:
        desk = broken_desk
        primary = desk.cluster.primary

        async def main() -> None:
            async with desk.manager(
                refresh_delay=0.2, refresh_timeout=0.3, abandon_timeout=PATIENCE
            ) as manager:
                pool, held = desk.pool_of(manager, primary), await manager.acquire()
                pid = await desk.pid_of(manager, held)
                await asyncio.to_thread(desk.cluster.freeze, primary)
                await desk.becomes(manager, primary, Role.UNAVAILABLE)
                desk.refuses(manager, pool)
                await asyncio.to_thread(desk.cluster.thaw, primary)
                await desk.becomes(manager, primary, Role.MASTER)
                assert desk.pool_of(manager, primary) is not pool
                # What was out goes on; nothing else comes from that pool.
                assert await desk.pid_of(manager, held) == pid
                async with manager.acquire() as other:
                    assert await desk.pid_of(manager, other) != pid
                await manager.release(held)

                async def is_gone() -> bool:
                    return pid not in await desk.backends()

                await desk.until(is_gone, "the retired pool is closed")
                assert await desk.writer(manager) == primary.name

        desk.run(main())

    def test_a_frozen_host_hangs_nobody(self, broken_desk: "Desk[PoolT, ConnT]") -> None:
        desk = broken_desk
        frozen = desk.cluster.primary
        replicas = {node.name for node in desk.cluster.replicas}

        async def main() -> None:
            async with desk.manager(
                refresh_delay=0.2, refresh_timeout=0.3, abandon_timeout=0.6
            ) as manager:
                ending = manager.acquire()
                await desk.insert(await ending.__aenter__(), "frozen")
                asking = await manager.acquire()
                query = desk.start_sleeping(asking)
                await desk.sleeps()
                await asyncio.to_thread(desk.cluster.freeze, frozen)
                async with asyncio.timeout(SOON):
                    connecting = asyncio.ensure_future(desk.writer(manager, timeout=0.3))
                    try:
                        await ending.__aexit__(None, None, None)
                    except desk.subject.errors:
                        pass
                    else:
                        assert not desk.subject.driver.commits
                    with pytest.raises((AcquireTimeoutError, *desk.subject.errors)):
                        await connecting
                    with pytest.raises(desk.subject.errors):
                        await query
                await manager.release(asking)
                await desk.becomes(manager, frozen, Role.UNAVAILABLE)
                assert {await desk.reader(manager) for _ in range(5)} <= replicas
                await asyncio.to_thread(desk.cluster.thaw, frozen)
                assert await desk.writer(manager) == frozen.name

        desk.run(main())

    def test_close_is_bounded_with_a_frozen_host_and_connections_out(
        self, broken_desk: "Desk[PoolT, ConnT]"
    ) -> None:
        desk = broken_desk

        async def main() -> None:
            async with desk.manager(refresh_timeout=1.0) as manager:
                held = await desk.hold_all(manager, desk.cluster.primary)
                await asyncio.to_thread(desk.cluster.freeze, desk.cluster.primary)
                query = desk.start_sleeping(held[0])
                await asyncio.sleep(0)
                async with asyncio.timeout(SOON):
                    await manager.close(timeout=0.05)
                    with pytest.raises(desk.subject.errors):
                        await query
                await desk.release_all(manager, held)

        desk.run(main())


class Desk(Generic[PoolT, ConnT]):
    """One manager's class, one cluster, and shortcuts."""

    def __init__(
        self, subject: ManagerSubject[PoolT, ConnT], cluster: LocalCluster, name: str
    ) -> None:
        self.subject = subject
        self.cluster = cluster
        self.name = re.sub(r"\W", "-", name).removeprefix("test_")[:63]
        """The application_name of this test's backends."""
        cluster.psql(cluster.primary, "TRUNCATE surface")

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a test in a loop of its own, and see that nothing is left in it."""
        unheard: list[dict[str, Any]] = []

        async def check() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, told: unheard.append(told))
            me = asyncio.current_task()
            async with asyncio.timeout(2 * PATIENCE):
                await main
            await self.until(lambda: asyncio.all_tasks() <= {me}, "all tasks have ended")

        asyncio.run(check())
        assert self.without_noise(map(repr, unheard)) == []

    def without_noise(self, told: Iterable[str]) -> list[str]:
        noise = self.subject.noise
        return [each for each in told if each and not any(word in each for word in noise)]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Ask, and await the answer where it is awaitable, until it is true."""
        until = time.monotonic() + PATIENCE
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            assert time.monotonic() < until, f"not within {PATIENCE:g} s: {what}"
            await asyncio.sleep(0.01)

    # Managers

    def dsn(self, dsn: str | None = None) -> str:
        plain = self.cluster.dsn if dsn is None else dsn
        scheme = self.subject.scheme
        return f"{scheme}{plain.removeprefix('postgresql')}?application_name={self.name}"

    def make(self, dsn: str | None = None, **settings: Any) -> BasePoolManager[PoolT, ConnT]:
        driver = self.subject.driver
        options = {**driver.options, **driver.sizes(0, SIZE)}
        defaults: dict[str, Any] = {"acquire_timeout": PATIENCE, "pool_factory_kwargs": options}
        # On a busy machine, no host that is well is to miss a check.
        defaults["refresh_timeout"] = SOON
        return self.subject.manager(self.dsn(dsn), **{**defaults, **settings})

    @asynccontextmanager
    async def manager(
        self, dsn: str | None = None, *, ready: bool = True, **settings: Any
    ) -> AsyncGenerator[BasePoolManager[PoolT, ConnT]]:
        """Of all hosts, unless there is a DSN; it is terminated in the end."""
        manager = self.make(dsn, **settings)
        try:
            if ready:
                await manager.ready(timeout=PATIENCE)
            yield manager
        finally:
            await manager.terminate()

    def node(self, name: str) -> Node:
        return next(node for node in self.cluster.nodes if node.name == name)

    def pool_of(self, manager: BasePoolManager[PoolT, ConnT], node: Node) -> PoolT:
        """`manager.pools` are those in service, in the order of the DSN."""
        serving = [host.address for host in manager.topology if host.serving]
        return manager.pools[serving.index(node.address)]

    async def becomes(self, manager: BasePoolManager[PoolT, ConnT], node: Node, role: Role) -> None:
        """Wait until a host has the role and, where it is one that serves, a pool."""
        may_serve = role in (Role.MASTER, Role.REPLICA)

        def has_become() -> bool:
            host = manager.topology[node.address]
            return host.role is role and host.serving is may_serve

        await self.until(has_become, f"{node!r} becomes {role}")

    def knows(self, manager: BasePoolManager[PoolT, ConnT], pool: PoolT) -> bool:
        """Whether the pool is one of this manager's still."""
        try:
            manager.get_pool_freesize(pool)
        except ValueError:
            return False
        return True

    def refuses(
        self,
        manager: BasePoolManager[PoolT, ConnT],
        pool: PoolT,
        connection: ConnT | None = None,
    ) -> None:
        """The pool is not one of this manager's, or not any more."""
        assert pool not in manager.pools
        assert not manager.pool_is_master(pool)
        assert not manager.pool_is_replica(pool)
        for ask in (
            manager.get_pool_freesize,
            manager.get_last_response_time,
            manager.acquire_from_pool,
        ):
            with pytest.raises(ValueError, match="not a pool of this manager"):
                ask(pool)
        if connection is not None:
            with pytest.raises(ValueError, match="not a pool of this manager"):
                manager.register_connection(connection, pool)

    # Connections

    async def hold_all(self, manager: BasePoolManager[PoolT, ConnT], *nodes: Node) -> list[ConnT]:
        """Take every connection that users can have on these nodes."""
        return [
            await manager.acquire_from_pool(self.pool_of(manager, node))
            for node in nodes
            for _ in range(manager.get_pool_freesize(self.pool_of(manager, node)))
        ]

    async def release_all(
        self, manager: BasePoolManager[PoolT, ConnT], connections: list[ConnT]
    ) -> None:
        for connection in connections:
            await manager.release(connection)

    async def server_of(self, manager: BasePoolManager[PoolT, ConnT], connection: ConnT) -> str:
        """The name of the server behind a connection."""
        return str(await manager.adapter.fetch_scalar(connection, "SHOW cluster_name"))

    async def pid_of(self, manager: BasePoolManager[PoolT, ConnT], connection: ConnT) -> int:
        """The server's process behind a connection."""
        shown = await manager.adapter.fetch_scalar(connection, "SELECT pg_backend_pid()")
        return int(str(shown))

    async def end_backend(self, manager: BasePoolManager[PoolT, ConnT], connection: ConnT) -> None:
        pid = await self.pid_of(manager, connection)
        await self.psql(f"SELECT pg_terminate_backend({pid}, {SOON:.0f}000)")

    async def insert(self, connection: ConnT, item: str) -> None:
        await self.subject.driver.execute(connection, f"INSERT INTO surface VALUES ('{item}')")

    def has(self, item: str) -> bool:
        sql = f"SELECT EXISTS (SELECT FROM surface WHERE item = '{item}')"
        return self.cluster.psql(self.cluster.primary, sql) == "t"

    async def writer(
        self, manager: BasePoolManager[PoolT, ConnT], timeout: float | None = None
    ) -> str:
        """Write and commit; the name of the server that took it."""
        async with manager.acquire_master(timeout=timeout) as connection:
            name = await self.server_of(manager, connection)
            await self.insert(connection, "written")
            await self.subject.commit(connection)
        return name

    async def reader(self, manager: BasePoolManager[PoolT, ConnT]) -> str:
        """The name of the server that a read goes to."""
        async with manager.acquire_replica() as connection:
            return await self.server_of(manager, connection)

    def start_sleeping(self, connection: ConnT) -> "asyncio.Future[object]":
        return asyncio.ensure_future(
            self.subject.driver.execute(connection, "SELECT pg_sleep(600)")
        )

    async def sleeps(self) -> None:
        """Until the primary works on what `start_sleeping` asked."""

        async def asleep() -> bool:
            return bool(await self.backends("AND wait_event = 'PgSleep'"))

        await self.until(asleep, "the query runs")

    # Beside the driver

    async def psql(self, sql: str) -> str:
        """Of the primary."""
        return await asyncio.to_thread(self.cluster.psql, self.cluster.primary, sql)

    async def backends(self, where: str = "") -> list[int]:
        """The processes of this test's connections, on the primary."""
        sql = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{self.name}' {where}"
        return [int(pid) for pid in (await self.psql(sql)).split()]

    async def outage(
        self, manager: BasePoolManager[PoolT, ConnT], node: Node, end: Callable[[], None]
    ) -> float:
        """Seconds from the moment at which a server says that it accepts writes until the first
        one of three users, who try all the time, has one acknowledged."""
        seen = len(node.log_file.read_text())

        async def keep_trying() -> float:
            while True:
                try:
                    if await self.writer(manager) == node.name:
                        return time.time()
                except self.subject.errors:
                    pass
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as users:
            writing = [users.create_task(keep_trying()) for _ in range(3)]
            await asyncio.to_thread(end)
        told = ACCEPTS_WRITES.search(node.log_file.read_text(), seen)
        assert told is not None, node.log_tail()
        return min(task.result() for task in writing) - float(told[1])


def _heal(cluster: LocalCluster) -> None:
    """Bring back a primary, whichever node it is, and two replicas that stream from it."""
    for node in cluster.nodes:
        cluster.thaw(node)
    primary = cluster.primary
    if not primary.is_running:
        cluster.start(primary)
    for node in cluster.nodes:
        if node is not primary and not _follows(cluster, node):
            cluster.rejoin(node)


def _follows(cluster: LocalCluster, node: Node) -> bool:
    if node.role == "primary" or not node.is_running:
        return False
    try:
        cluster.wait_streaming(node, timeout=SOON)
    except ClusterError:
        return False
    return True


def _await_no_backends(cluster: LocalCluster, node: Node) -> None:
    """All clients have gone but the servers' own; the name of one that is left is its test's."""
    left = (
        "SELECT string_agg(DISTINCT application_name, ', ') FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    until = time.monotonic() + PATIENCE
    while names := cluster.psql(node, left):
        assert time.monotonic() < until, f"connections are left on {node!r}: {names}"
