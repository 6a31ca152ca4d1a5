"""What a manager may be made with, and how it starts."""

import asyncio
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from tests.core.conftest import Bench, in_use, make, manager_on, now, start, virtual

from pyscopg2.base import BasePoolManager
from pyscopg2.core.errors import DsnError, PoolManagerClosedError
from pyscopg2.core.topology import Role
from pyscopg2.testing.fake import FakeAdapter, FakeConnection, FakeNetwork, FakePool
from pyscopg2.testing.virtual_time import VirtualTimeLoop, run


def test_it_can_be_made_without_a_loop_and_opens_nothing() -> None:
    network = FakeNetwork.cluster()
    manager = manager_on(FakeAdapter(network))
    assert manager.dsn == network.dsn
    assert manager.database == "test"
    assert manager.loop is None
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
        ({"acquire_timeout": 10**400}, ValueError, "acquire_timeout must be finite"),
        ({"refresh_delay": -(10**5000)}, ValueError, "refresh_delay must be above 0, not"),
        ({"refresh_timeout": Decimal(1)}, TypeError, "refresh_timeout must be a number, not Decim"),
        ({"abandon_timeout": Fraction(1)}, TypeError, "abandon_timeout must be a number, not Frac"),
        ({"acquire_timeout": 1j}, TypeError, "acquire_timeout must be a number, not complex"),
        ({"master_as_replica_weight": 10**400}, ValueError, "master_as_replica_weight must be wi"),
        ({"master_as_replica_weight": 10**5000}, ValueError, "master_as_replica_weight must be w"),
        ({"master_as_replica_weight": float("nan")}, ValueError, "master_as_replica_weight must"),
        ({"stopwatch_window_size": 0}, ValueError, "^stopwatch_window_size must be at least 1"),
        ({"stopwatch_window_size": -(10**5000)}, ValueError, "^stopwatch_window_size must be at"),
        ({"stopwatch_window_size": 10**30}, ValueError, "^stopwatch_window_size must be at most"),
        ({"stopwatch_window_size": 2.5}, TypeError, "^stopwatch_window_size must be a whole numb"),
        ({"stopwatch_window_size": True}, TypeError, "^stopwatch_window_size must be a whole num"),
        ({"stopwatch_window_size": "9"}, TypeError, "^stopwatch_window_size must be a whole numb"),
        ({"stopwatch_window_size": None}, TypeError, "^stopwatch_window_size must be a whole num"),
        ({"fallback_master": "false"}, TypeError, "fallback_master must be True or False, not 'f"),
        ({"fallback_master": None}, TypeError, "fallback_master must be True or False, not None"),
        ({"fencing": "no"}, TypeError, "fencing must be True or False, not 'no'"),
        ({"fencing": 0}, TypeError, "fencing must be True or False, not 0"),
        ({"pool_factory_kwargs": 1}, TypeError, "pool_factory_kwargs must be a mapping, not int"),
        ({"pool_factory_kwargs": []}, TypeError, "pool_factory_kwargs must be a mapping, not list"),
        ({"pool_factory_kwargs": {1: 2}}, TypeError, "pool_factory_kwargs: a name is a str, not 1"),
        ({"kwargs": 1}, TypeError, "kwargs"),
        (
            {"balancer_policy": "round_robin"},
            TypeError,
            "balancer_policy must be a class .* with a method `choose`, not 'round_robin'",
        ),
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


@virtual
async def test_a_host_that_is_down_at_the_start_costs_nobody_anything() -> None:
    bench = Bench(replicas=2, ready=False)
    bench["db2"].down()
    bench["db3"].down()
    async with bench:
        async with bench.manager.acquire() as connection:
            assert connection.server is bench["db1"]
        assert now() < 0.01


@virtual
async def test_a_host_that_is_silent_at_the_start_is_waited_for_once() -> None:
    bench = Bench(replicas=2, ready=False, acquire_timeout=1, refresh_timeout=1)
    bench["db3"].freeze()
    async with bench:
        async with bench.manager.acquire() as connection:
            assert connection.server is bench["db1"]
        assert now() == pytest.approx(1, abs=0.01)
        bench["db1"].down()
        bench.network.failover()
        async with bench.manager.acquire() as connection:
            assert connection.server is bench["db2"]
        assert now() < 1.5


@virtual
async def test_a_replaced_master_that_answers_first_gets_no_writes() -> None:
    bench = Bench(replicas=2, ready=False)
    bench.network.failover(old_stays=True)
    bench["db2"].latency = 0.2
    async with bench:
        async with bench.manager.acquire() as connection:
            assert connection.server is bench["db2"]
        async with bench.manager.acquire(fallback_master=True, read_only=True) as connection:
            assert connection.server is bench["db3"]


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
    run(manager.close())
    assert not isinstance(error.value, PoolManagerClosedError)


@pytest.mark.parametrize("verb", ["close", "terminate"])
def test_it_is_closed_in_its_own_loop(verb: str) -> None:
    network = FakeNetwork.cluster()
    manager = manager_on(FakeAdapter(network))
    loop = VirtualTimeLoop()
    try:
        loop.run_until_complete(manager.ready())
        with pytest.raises(RuntimeError, match="belongs to another event loop: close it there"):
            run(getattr(manager, verb)())
        connection = loop.run_until_complete(manager.acquire())
        loop.run_until_complete(manager.release(connection))
        loop.run_until_complete(getattr(manager, verb)())
    finally:
        loop.close()
    network.assert_nothing_left()


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
