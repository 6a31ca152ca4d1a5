"""The surface that people use: arguments, results, errors, and what they say."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.conftest import Bench, Manager, in_use, manager_on, now, start, virtual

from pyscopg2.base import BasePoolManager
from pyscopg2.core.acquire import AcquireContext
from pyscopg2.core.errors import (
    AcquireTimeoutError,
    DsnError,
    NotReadyError,
    PoolManagerClosedError,
    PyscopgError,
)
from pyscopg2.core.topology import Role
from pyscopg2.testing.fake import FakeAdapter, FakeConnection, FakeNetwork, FakePool
from pyscopg2.testing.fake_server import (
    FULL,
    STARTING,
    UNKNOWN_DATABASE,
    WRONG_PASSWORD,
    FakeError,
)
from pyscopg2.testing.virtual_time import run

Acquiring = AcquireContext[FakePool, FakeConnection]

# Construction


def make(**settings: Any) -> Manager:
    return manager_on(FakeAdapter(FakeNetwork.cluster()), **settings)


def test_it_can_be_made_without_a_loop_and_opens_nothing() -> None:
    network = FakeNetwork.cluster()
    manager = manager_on(FakeAdapter(network))
    assert manager.dsn == network.dsn
    assert [server.connects for server in network.servers.values()] == [0, 0, 0]
    assert [host.address for host in manager.topology] == [*network.servers]
    assert {host.role for host in manager.topology} == {Role.UNKNOWN}
    assert (manager.pools, manager.available_pool_count) == ((), 0)


def test_the_order_of_the_arguments() -> None:
    kind = type(make())
    kind("host=a", 1.0, 1.0, 1.0, False, 0.0, Chooser, 128, None, 10.0)
    with pytest.raises(TypeError, match="unexpected"):
        make(acquire_timout=3)


class Chooser:
    def choose(self, candidates: Any, /) -> Any:
        return candidates[0]


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"acquire_timeout": -1}, ValueError, "acquire_timeout must be at least 0, not -1"),
        ({"acquire_timeout": None}, TypeError, "acquire_timeout must be a number"),
        ({"acquire_timeout": float("inf")}, ValueError, "acquire_timeout"),
        ({"refresh_delay": 0}, ValueError, "refresh_delay must be above 0, not 0"),
        ({"refresh_delay": "1"}, TypeError, "refresh_delay must be a number, not str"),
        ({"refresh_timeout": float("nan")}, ValueError, "refresh_timeout"),
        ({"refresh_timeout": True}, TypeError, "refresh_timeout must be a number, not bool"),
        ({"abandon_timeout": 0}, ValueError, "abandon_timeout must be above 0"),
        ({"master_as_replica_weight": 1.1}, ValueError, r"within \[0, 1\], not 1.1"),
        ({"master_as_replica_weight": -0.1}, ValueError, r"within \[0, 1\]"),
        ({"master_as_replica_weight": "1"}, TypeError, "master_as_replica_weight must be a number"),
        ({"stopwatch_window_size": 0}, ValueError, "window_size must be at least 1"),
        ({"balancer_policy": object()}, TypeError, "balancer_policy has no method `choose`"),
        ({"balancer_policy": None}, TypeError, "balancer_policy"),
        ({"pool_factory_kwargs": {"host": "db9"}}, TypeError, "host is for the DSN"),
        ({"pool_factory_kwargs": {"port": 1, "dsn": ""}}, TypeError, "dsn, port is for the DSN"),
        ({"pool_factory_kwargs": {"size": 3}}, TypeError, "size"),
        ({"pool_factory_kwargs": {"max_size": 0}}, ValueError, "max_size=0"),
    ],
)
def test_arguments_that_are_refused(
    settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        make(**settings)


@pytest.mark.parametrize("dsn", ["postgresql://a:b:c", "host=a,b port=1,2,3", "nonsense"])
def test_a_bad_dsn_is_refused_without_its_password(dsn: str) -> None:
    with pytest.raises(DsnError) as error:
        make(dsn=f"{dsn} password=secret" if "=" in dsn else dsn)
    assert "secret" not in str(error.value)


def test_a_manager_without_an_adapter_says_so() -> None:
    with pytest.raises(TypeError, match="BasePoolManager has no adapter"):
        BasePoolManager[Any, Any]("host=a")


def test_the_scheme_of_the_dsn_chooses_among_several_drivers() -> None:
    plain, one, two = (FakeAdapter(FakeNetwork.cluster()) for _ in range(3))
    by_scheme = {"postgresql+one://": one, "postgresql+two://": two}

    class Several(BasePoolManager[FakePool, FakeConnection]):
        adapter = plain
        adapters = by_scheme

    chosen = [Several(f"{scheme}a,b/d") for scheme in ("postgresql://", *by_scheme)]
    assert [manager.adapter for manager in chosen] == [plain, one, two]
    assert Several("host=a").adapter is plain
    assert chosen[1].dsn == "postgresql+one://a,b/d"
    assert [host.address for host in chosen[1].topology] == ["a:5432", "b:5432"]


@pytest.mark.parametrize("policy", [Chooser, Chooser()])
def test_a_policy_is_a_class_or_an_instance(policy: Any) -> None:
    make(balancer_policy=policy)


def test_its_repr_shows_the_hosts_and_no_password() -> None:
    assert "db1:5432 unknown; db2:5432 unknown" in repr(make())
    assert "secret" not in repr(make())


# Acquire


@virtual
async def test_by_role() -> None:
    async with Bench(replicas=2) as bench:
        manager = bench.manager
        takes: list[tuple[Callable[[], Acquiring], set[str]]] = [
            (manager.acquire, {"db1"}),
            (manager.acquire_master, {"db1"}),
            (manager.acquire_replica, {"db2", "db3"}),
            (lambda: manager.acquire(True), {"db2", "db3"}),
            (lambda: manager.acquire(read_only=True), {"db2", "db3"}),
        ]
        for take, hosts in takes:
            seen: set[str] = set()
            for _ in range(30):
                async with take() as connection:
                    seen.add(connection.server.name)
            assert seen == hosts
        assert in_use(manager) == 0


@virtual
async def test_await_it_or_enter_it() -> None:
    async with Bench() as bench:
        connection = await bench.manager.acquire()
        assert in_use(bench.manager) == 1
        await bench.manager.release(connection)
        assert in_use(bench.manager) == 0
        async with bench.manager.acquire() as connection:
            assert in_use(bench.manager) == 1
        assert in_use(bench.manager) == 0


@virtual
async def test_each_object_is_used_once() -> None:
    async with Bench() as bench:
        acquire = bench.manager.acquire()
        with pytest.raises(RuntimeError, match="has not been entered"):
            await acquire.__aexit__(None, None, None)
        async with acquire:
            with pytest.raises(RuntimeError, match="entered before"):
                await acquire.__aenter__()
        with pytest.raises(RuntimeError, match="entered before"):
            await acquire
        assert in_use(bench.manager) == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"master_as_replica_weight": 0.5}, ValueError),
        ({"master_as_replica_weight": 0.0}, ValueError),
        ({"read_only": True, "master_as_replica_weight": 1.01}, ValueError),
        ({"read_only": True, "master_as_replica_weight": -1}, ValueError),
        ({"read_only": True, "master_as_replica_weight": "1"}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"read_only": True, "timeout": float("nan")}, ValueError),
    ],
)
def test_arguments_of_acquire_that_are_refused_at_once(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        make().acquire(**arguments)


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("acquire_master", {"timeout": -1}),
        ("acquire_replica", {"timeout": -1}),
        ("acquire_replica", {"master_as_replica_weight": 2}),
    ],
)
def test_so_are_those_by_role(verb: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        getattr(make(), verb)(**arguments)


@virtual
async def test_positional_arguments() -> None:
    async with Bench(replicas=0) as bench:
        for acquire in (
            bench.manager.acquire(True, True, 0.0, 0.5),
            bench.manager.acquire_master(0.5),
            bench.manager.acquire_replica(True, 0.0, 0.5),
        ):
            async with acquire as connection:
                assert connection.server is bench["db1"]
        began = now()
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire(True, False, None, 0.25)
        assert now() == began + 0.25


@pytest.mark.parametrize("verb", ["acquire", "acquire_master", "acquire_replica"])
@virtual
async def test_what_the_driver_does_not_know_is_a_type_error_at_once(verb: str) -> None:
    async with Bench() as bench:
        began = now()
        with pytest.raises(TypeError, match="patience"):
            await getattr(bench.manager, verb)(patience=3)
        assert now() == began
        assert in_use(bench.manager) == 0
        await bench.check()
        assert bench.roles == "master replica"


@virtual
async def test_fallback_master() -> None:
    async with Bench(fallback_master=True) as bench:
        async with bench.manager.acquire_replica() as connection:
            assert connection.server is bench["db2"]
        bench["db2"].down()
        await bench.until_roles("master unavailable")
        async with bench.manager.acquire_replica() as connection:
            assert connection.server is bench["db1"]
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire_replica(fallback_master=False)


@pytest.mark.parametrize(
    ("setting", "argument", "hosts"),
    [
        (0.0, None, {"db2"}),
        (0.0, 1.0, {"db1", "db2"}),
        (1.0, None, {"db1", "db2"}),
        (1, 0, {"db2"}),
    ],
)
@virtual
async def test_master_as_replica_weight(
    setting: float, argument: float | None, hosts: set[str]
) -> None:
    async with Bench(master_as_replica_weight=setting) as bench:
        seen: set[str] = set()
        for _ in range(50):
            async with bench.manager.acquire_replica(master_as_replica_weight=argument) as got:
                seen.add(got.server.name)
        assert seen == hosts
        async with bench.manager.acquire() as got:
            assert got.server is bench["db1"]


@virtual
async def test_the_weight_is_a_probability() -> None:
    async with Bench(replicas=1, master_as_replica_weight=0.5) as bench:
        await bench.manager.acquire()  # a greedy policy takes db2 when both are candidates
        masters = 0
        for _ in range(1000):
            connection = await bench.manager.acquire_replica()
            masters += connection.server is bench["db1"]
            await bench.manager.release(connection)
        assert masters == 0
        held = [await bench.manager.acquire_replica(master_as_replica_weight=0) for _ in range(5)]
        for _ in range(1000):
            connection = await bench.manager.acquire_replica()
            masters += connection.server is bench["db1"]
            await bench.manager.release(connection)
        assert 430 < masters < 570
        for connection in held:
            await bench.manager.release(connection)


# Release


@virtual
async def test_a_connection_is_released_once() -> None:
    async with Bench() as bench:
        connection = await bench.manager.acquire()
        await bench.manager.release(connection)
        with pytest.raises(ValueError, match="given back already"):
            await bench.manager.release(connection)


@virtual
async def test_foreign_connections_are_refused() -> None:
    async with Bench() as bench, Bench() as other:
        connection = await other.manager.acquire()
        for give_back in (
            bench.manager.release(connection),
            bench.manager.release_to_pool(connection, bench.pool("db1")),
            bench.manager.release_to_pool(connection, other.pool("db1")),
        ):
            with pytest.raises(ValueError):
                await give_back
        await other.manager.release(connection)


class Sparing(FakeAdapter):
    """Resets nothing, so that a release does not suspend."""

    async def release_to_pool(
        self, connection: FakeConnection, pool: FakePool, /, **kwargs: Any
    ) -> None:
        if kwargs:
            raise TypeError("no such argument")
        self.given_back = connection

    async def acquire_from_pool(self, pool: FakePool, /, **kwargs: Any) -> FakeConnection:
        given_back, self.given_back = self.given_back, None
        return given_back or await pool.acquire()

    given_back: FakeConnection | None = None


@virtual
async def test_an_unknown_argument_of_release_is_a_type_error_and_leaks_nothing() -> None:
    async with Bench() as bench:
        connection = await bench.manager.acquire()
        with pytest.raises(TypeError):
            await bench.manager.release(connection, patience=3)
        await asyncio.sleep(0.5)
        assert in_use(bench.manager) == 0
        assert not connection.is_closed


@virtual
async def test_who_mends_the_arguments_of_a_release_has_given_back_once() -> None:
    """A driver whose connections are the same objects for every user, and come without a wait."""
    async with Bench(adapter=Sparing) as bench:
        connection = await bench.manager.acquire()
        with pytest.raises(TypeError):
            await bench.manager.release(connection, patience=3)
        await bench.manager.release(connection)
        assert await bench.manager.acquire() is connection
        await asyncio.sleep(0.5)
        assert in_use(bench.manager) == 1
        await bench.manager.release(connection)


# One pool


@virtual
async def test_a_connection_of_this_very_pool() -> None:
    async with Bench(replicas=2, size=1) as bench:
        manager, pool = bench.manager, bench.pool("db3")
        async with manager.acquire_from_pool(pool) as connection:
            assert connection.server is bench["db3"]
            assert manager.get_pool_freesize(pool) == 0
        connection = await manager.acquire_from_pool(pool, timeout=5)
        with pytest.raises(AcquireTimeoutError, match="no connection to this pool"):
            await manager.acquire_from_pool(pool)
        with pytest.raises(ValueError, match="not a connection of this pool"):
            await manager.release_to_pool(connection, bench.pool("db2"))
        await manager.release_to_pool(connection, pool)
        with pytest.raises(ValueError, match="given back already"):
            await manager.release_to_pool(connection, pool)
        assert manager.get_pool_freesize(pool) == 1
        with pytest.raises(TypeError, match="patience"):
            await manager.acquire_from_pool(pool, patience=3)


@virtual
async def test_a_pool_that_is_not_in_service_is_refused() -> None:
    async with Bench() as bench:
        pool = bench.pool("db2")
        connection = await bench.manager.acquire_replica()
        bench["db2"].down()
        await bench.until_roles("master unavailable")
        bench["db2"].up()
        await bench.until_roles("master replica")
        assert bench.pool("db2") is not pool
        verbs: list[Callable[[], Any]] = [
            lambda: bench.manager.acquire_from_pool(pool),
            lambda: bench.manager.get_pool_freesize(pool),
            lambda: bench.manager.get_last_response_time(pool),
            lambda: bench.manager.register_connection(object(), pool),  # type: ignore[arg-type]
        ]
        for verb in verbs:
            with pytest.raises(ValueError, match="not a pool of this manager's"):
                verb()
        assert not bench.manager.pool_is_replica(pool)
        assert not bench.manager.pool_is_master(pool)
        await bench.manager.release(connection)


@virtual
async def test_a_connection_taken_by_hand_can_be_registered() -> None:
    async with Bench() as bench:
        manager, pool = bench.manager, bench.pool("db1")
        connection = await pool.acquire()
        free = manager.get_pool_freesize(pool)
        for _ in range(2):
            manager.register_connection(connection, pool)
            assert manager.get_pool_freesize(pool) == free - 1
        await manager.release(connection)
        assert manager.get_pool_freesize(pool) == free

        connection = await manager.acquire_from_pool(pool)
        manager.register_connection(connection, pool)
        await manager.release(connection)
        assert manager.get_pool_freesize(pool) == free


@virtual
async def test_of_a_superseded_hosts_pool_nothing_is_registered() -> None:
    async with Bench() as bench:
        pool = bench.pool("db1")
        connection = await pool.acquire()
        bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master")
        with pytest.raises(ValueError, match=r"superseded|retired"):
            bench.manager.register_connection(connection, pool)
        await pool.release(connection)


@virtual
async def test_a_closed_manager_gives_nothing_from_a_pool_either() -> None:
    async with Bench() as bench:
        pool = bench.pool("db1")
        await bench.manager.close()
        with pytest.raises(PoolManagerClosedError):
            await bench.manager.acquire_from_pool(pool)


# Pools and what is known of them


@virtual
async def test_pools_and_counts() -> None:
    async with Bench(replicas=2) as bench:
        manager = bench.manager
        db1, db2, db3 = (bench.pool(name) for name in ("db1", "db2", "db3"))
        assert manager.pools == (db1, db2, db3)
        assert await manager.get_master_pools() == [db1]
        assert await manager.get_replica_pools() == [db2, db3]
        assert await manager.get_replica_pools(fallback_master=True) == [db2, db3]
        counts = manager.master_pool_count, manager.replica_pool_count
        assert (*counts, manager.available_pool_count) == (1, 2, 3)
        assert [manager.pool_is_master(pool) for pool in (db1, db2)] == [True, False]
        assert [manager.pool_is_replica(pool) for pool in (db1, db2)] == [False, True]
        bench["db2"].down()
        bench["db3"].down()
        await bench.until_roles("master unavailable unavailable")
        assert list(manager.pools) == [db1]
        assert await manager.get_replica_pools(True) == [db1]
        assert manager.available_pool_count == 1


@virtual
async def test_the_pool_with_the_most_free_connections() -> None:
    async with Bench(replicas=2, fallback_master=True) as bench:
        manager = bench.manager
        assert await manager.get_pool(False) is bench.pool("db1")
        held = await manager.acquire_from_pool(bench.pool("db2"))
        assert await manager.get_pool(True) is bench.pool("db3")
        await manager.release(held)
        await manager.acquire_from_pool(bench.pool("db3"))
        assert await manager.get_pool(read_only=True) is bench.pool("db2")
        bench["db2"].down()
        bench["db3"].down()
        await bench.until_roles("master unavailable unavailable")
        assert await manager.get_pool(True) is bench.pool("db1")
        assert await manager.get_pool(True, fallback_master=True) is bench.pool("db1")


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("get_pool", (False,)),
        ("get_master_pools", ()),
        ("wait_masters_ready", (1,)),
        ("wait_all_ready", ()),
    ],
)
@virtual
async def test_pools_are_waited_for(verb: str, arguments: tuple[Any, ...]) -> None:
    bench = Bench(ready=False)
    bench["db1"].down()
    async with bench:
        waiting = start(getattr(bench.manager, verb)(*arguments))
        await asyncio.sleep(30)
        assert not waiting.done()
        bench["db1"].up()
        pools = await asyncio.wait_for(waiting, 1)
        if verb.startswith("get"):
            assert pools in (bench.pool("db1"), [bench.pool("db1")])


@virtual
async def test_pools_are_found_while_connects_are_refused() -> None:
    async with Bench(replicas=0) as bench:
        bench["db1"].refuse_connects = FULL
        await bench.manager.acquire()
        refused = start(bench.manager.acquire())
        await asyncio.sleep(0.002)
        assert await bench.manager.get_master_pools() == [bench.pool("db1")]
        assert await bench.manager.get_pool(False) is bench.pool("db1")
        with pytest.raises(AcquireTimeoutError):
            await refused


@virtual
async def test_free_places_are_counted_as_users_see_them() -> None:
    async with Bench(size=3) as bench:
        manager, pool = bench.manager, bench.pool("db1")
        assert manager.get_pool_freesize(pool) == 3
        held = await manager.acquire()
        opening = start(manager.acquire())
        await asyncio.sleep(0)
        assert manager.get_pool_freesize(pool) == 1
        await manager.release(await opening)
        await manager.release(held)
        assert manager.get_pool_freesize(pool) == 3


@virtual
async def test_response_times_are_the_median_of_the_last_checks() -> None:
    async with Bench(stopwatch_window_size=3) as bench:
        pool = bench.pool("db1")
        assert bench.manager.get_last_response_time(pool) == pytest.approx(0.001)
        for latency, median in ((0.011, 0.006), (0.02, 0.011), (0.03, 0.02), (0.03, 0.03)):
            bench["db1"].latency = latency
            await bench.check()
            assert bench.manager.get_last_response_time(pool) == pytest.approx(median)


@virtual
async def test_whether_a_connection_is_closed() -> None:
    async with Bench() as bench, bench.manager.acquire() as connection:
        assert not bench.manager.is_connection_closed(connection)
        bench["db1"].break_connections()
        assert bench.manager.is_connection_closed(connection)


# Ready, and the other waits


@virtual
async def test_ready_waits_until_every_host_has_answered() -> None:
    bench = Bench(replicas=2, ready=False)
    bench["db3"].latency = 0.2
    bench["db2"].down()
    async with bench:
        with pytest.raises(NotReadyError, match="not ready within 1 s: db1:5432 master; db2:5432"):
            await bench.manager.ready(timeout=1)
        bench["db2"].up()
        await bench.manager.ready()
        assert bench.roles == "master replica replica"


@pytest.mark.parametrize(
    ("down", "counts", "reached"),
    [
        ((), (1, 2), True),
        ((), (1, 3), False),
        ((), (2, 0), False),
        ((), (0, 0), True),
        (("db1",), (0, 2), True),
        (("db1",), (1, 0), False),
        (("db2",), (1, 1), True),
        (("db2", "db3"), (1, 0), True),
        (("db1", "db2", "db3"), (0, 0), True),
    ],
)
@virtual
async def test_ready_counts_roles(
    down: tuple[str, ...], counts: tuple[int, int], reached: bool
) -> None:
    bench = Bench(replicas=2, ready=False)
    for name in down:
        bench[name].down()
    async with bench:
        if reached:
            await bench.manager.ready(*counts, 3)
            assert now() < 0.1
        else:
            with pytest.raises(NotReadyError):
                await bench.manager.ready(*counts, 3)
            assert now() == pytest.approx(3)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"masters_count": 1}, ValueError),
        ({"replicas_count": 1}, ValueError),
        ({"masters_count": -1, "replicas_count": 1}, ValueError),
        ({"masters_count": 1, "replicas_count": -1}, ValueError),
        ({"masters_count": 1.5, "replicas_count": 1}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"timeout": None}, TypeError),
        ({"hosts": 3}, TypeError),
    ],
)
def test_arguments_of_ready_that_are_refused(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        run(make().ready(**arguments))


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("wait_masters_ready", (-1,)),
        ("wait_replicas_ready", (-1,)),
        ("wait_next_pool_check", (-1,)),
    ],
)
def test_so_are_those_of_the_other_waits(verb: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError):
        run(getattr(make(), verb)(*arguments))


@virtual
async def test_the_waits_end_when_it_is_so() -> None:
    bench = Bench(replicas=2, ready=False)
    bench["db1"].latency = 0.1
    bench["db3"].latency = 0.05
    async with bench:
        ends: dict[str, float] = {}

        async def note(name: str, *arguments: int) -> None:
            await getattr(bench.manager, name)(*arguments)
            ends[name + str(arguments)] = round(now(), 3)

        await asyncio.gather(
            note("wait_replicas_ready", 1),
            note("wait_replicas_ready", 2),
            note("wait_masters_ready", 1),
            note("wait_all_ready"),
            note("wait_masters_ready", 0),
        )
        assert ends == {
            "wait_masters_ready(0,)": 0.0,
            "wait_replicas_ready(1,)": 0.003,
            "wait_replicas_ready(2,)": 0.15,
            "wait_masters_ready(1,)": 0.3,
            "wait_all_ready()": 0.3,
        }


@virtual
async def test_the_next_check_began_after_the_call() -> None:
    async with Bench(refresh_delay=5) as bench:
        await asyncio.sleep(1)
        bench["db1"].latency = 0.3
        first = start(bench.manager.wait_next_pool_check())
        await asyncio.sleep(0.1)
        assert bench["db1"].log[-1].time == 1.003
        bench["db1"].in_recovery = True
        bench["db1"].latency = 0.3
        second = start(bench.manager.wait_next_pool_check())
        await first
        assert bench.role("db1") == "replica"
        bench["db1"].in_recovery = False
        await second
        assert bench.role("db1") == "master"


@virtual
async def test_a_host_that_is_down_counts_as_checked() -> None:
    async with Bench() as bench:
        bench["db2"].down()
        await bench.manager.wait_next_pool_check()
        assert bench.roles == "master unavailable"
        began = now()
        bench["db1"].freeze()
        with pytest.raises(NotReadyError):
            await bench.manager.wait_next_pool_check(timeout=0.5)
        assert now() == began + 0.5
        await bench.manager.wait_next_pool_check(2)


# What errors say


@virtual
async def test_a_timeout_shows_each_hosts_state_and_no_password() -> None:
    bench = Bench(replicas=2, ready=False)
    bench["db1"].down()
    bench["db2"].freeze()
    async with bench:
        with pytest.raises(AcquireTimeoutError) as error:
            await bench.manager.acquire(timeout=1.5)
        assert isinstance(error.value, TimeoutError)
        assert isinstance(error.value, PyscopgError)
        assert str(error.value) == (
            "no connection to a master within the deadline: "
            "db1:5432 unavailable (ConnectionRefusedError: db1: connection refused); "
            "db2:5432 unavailable (TimeoutError: no answer within 1 s); "
            "db3:5432 replica"
        )
        with pytest.raises(AcquireTimeoutError, match="no connection to a replica"):
            bench["db3"].down()
            await bench.manager.acquire(read_only=True, timeout=3)


@virtual
async def test_a_driver_that_tells_the_password_is_silenced() -> None:
    bench = Bench(replicas=0, ready=False)

    async def refuse(*_: object, **__: object) -> FakePool:
        raise OSError("cannot connect to postgresql://user:secret@db1/test")

    bench.adapter.create_pool = refuse  # type: ignore[method-assign]
    async with bench:
        with pytest.raises(AcquireTimeoutError, match=r"user:\*\*\*@db1") as error:
            await bench.manager.acquire()
        assert "secret" not in str(error.value)
        assert "secret" not in repr(bench.manager.topology["db1:5432"].reason)


@pytest.mark.parametrize("sqlstate", [WRONG_PASSWORD, UNKNOWN_DATABASE, "28000"])
@virtual
async def test_what_waiting_does_not_heal_is_told(sqlstate: str) -> None:
    bench = Bench(replicas=1, ready=False)
    bench["db1"].refuse_connects = bench["db2"].refuse_connects = sqlstate
    async with bench:
        for waiting in (
            bench.manager.ready(),
            bench.manager.ready(1, 0),
            bench.manager.ready(0, 1),
        ):
            with pytest.raises(NotReadyError, match="no use in waiting") as error:
                await waiting
            assert now() < 0.1
            cause = error.value.__cause__
            assert isinstance(cause, FakeError)
            assert cause.sqlstate == sqlstate
        with pytest.raises(AcquireTimeoutError) as timeout:
            await bench.manager.acquire()
        assert timeout.value.__cause__ is bench.manager.topology["db1:5432"].error
        for server in bench.network.servers.values():
            server.refuse_connects = None
        await bench.until_roles("master replica", within=20)


@virtual
async def test_ready_fails_at_once_only_where_too_many_are_hopeless() -> None:
    bench = Bench(replicas=2, ready=False)
    bench["db3"].refuse_connects = WRONG_PASSWORD
    async with bench:
        await bench.manager.ready(1, 1)
        for waiting in (bench.manager.ready(), bench.manager.ready(1, 2)):
            began = now()
            with pytest.raises(NotReadyError, match="no use in waiting"):
                await waiting
            assert now() == began


@pytest.mark.parametrize("sqlstate", [FULL, STARTING])
@virtual
async def test_what_waiting_heals_is_waited_for(sqlstate: str) -> None:
    bench = Bench(replicas=0, ready=False)
    bench["db1"].refuse_connects = sqlstate
    async with bench:
        ready, acquire = (
            start(bench.manager.ready()),
            start(bench.manager.acquire(timeout=9)),
        )
        await asyncio.sleep(5)
        assert not ready.done()
        bench["db1"].refuse_connects = None
        await ready
        await bench.manager.release(await acquire)
        assert now() < 5.3


@virtual
async def test_an_option_that_the_driver_refuses_only_when_it_connects() -> None:
    bench = Bench(replicas=0, ready=False)

    async def refuse(*_: object, **__: object) -> FakePool:
        raise TypeError("no such option: ssll")

    bench.adapter.create_pool = refuse  # type: ignore[method-assign]
    async with bench:
        with pytest.raises(NotReadyError) as error:
            await bench.manager.ready()
        assert isinstance(error.value.__cause__, TypeError)
        assert now() == 0


# Starting


@virtual
async def test_a_host_that_is_down_at_the_start_costs_nobody_anything() -> None:
    bench = Bench(replicas=2, ready=False)
    bench["db2"].down()
    bench["db3"].freeze()
    async with bench:
        async with bench.manager.acquire() as connection:
            assert connection.server is bench["db1"]
        assert now() < 0.01


@virtual
async def test_entering_a_manager_waits_for_no_host() -> None:
    bench = Bench(ready=False)
    bench["db1"].freeze()
    async with bench, bench.manager as manager:
        assert manager is bench.manager
        assert now() == 0


@pytest.mark.parametrize("verb", ["acquire", "ready", "get_master_pools", "wait_all_ready"])
def test_use_in_a_second_loop_is_refused(verb: str) -> None:
    network = FakeNetwork.cluster()
    manager = manager_on(FakeAdapter(network))

    async def use() -> None:
        await getattr(manager, verb)()

    run(use())
    with pytest.raises(RuntimeError, match="belongs to another event loop") as error:
        run(use())
    assert not isinstance(error.value, PoolManagerClosedError)


def test_a_policy_that_raises_or_returns_nonsense() -> None:
    class Bad:
        answer: object = None

        def choose(self, candidates: Any, /) -> Any:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    policy = Bad()

    @virtual
    async def main() -> None:
        async with Bench(replicas=2, size=1, balancer_policy=policy) as bench:
            with pytest.raises(TypeError, match="the balancer policy returned None"):
                await bench.manager.acquire(True)
            policy.answer = ZeroDivisionError()
            with pytest.raises(ZeroDivisionError):
                await bench.manager.acquire(True)
            assert in_use(bench.manager) == 0
            async with bench.manager.acquire():
                pass

    main()


@virtual
async def test_a_policy_that_raises_for_those_in_line_is_told_to_them() -> None:
    class Bad:
        def choose(self, candidates: Any, /) -> Any:
            raise ZeroDivisionError

    bench = Bench(replicas=2, ready=False, balancer_policy=Bad)
    for name in ("db2", "db3"):
        bench[name].down()
    async with bench:
        await bench.manager.ready(1, 0)
        waiting = [start(bench.manager.acquire(True, timeout=5)) for _ in range(2)]
        await asyncio.sleep(1)
        bench["db2"].latency = bench["db3"].latency = 0
        bench["db2"].up()
        bench["db3"].up()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        for outcome in done:
            if not isinstance(outcome, ZeroDivisionError):
                assert not isinstance(outcome, BaseException)
                await bench.manager.release(outcome)
        assert in_use(bench.manager) == 0
