"""What a monitor bears, what it bounds, and where it looks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.core.conftest import Bench, manager_on, now, reserved, start, suspect, virtual

from pyscopg2.balancer_policy import RoundRobinBalancerPolicy
from pyscopg2.core.dsn import Target
from pyscopg2.core.errors import AcquireTimeoutError, NotReadyError
from pyscopg2.core.monitoring.attention import Attention
from pyscopg2.core.topology import HostState
from pyscopg2.testing.fake import (
    FakeAdapter,
    FakeConnection,
    FakeNetwork,
    FakePool,
    FakeReserved,
    PooledFakeAdapter,
)
from pyscopg2.testing.fake_server import FULL, FakeServer

# Nothing from outside ends a monitor


class Trap:
    """Raises, or returns nonsense, where it is set; counts how often it did."""

    def __init__(self) -> None:
        self.verb = ""
        self.spring: Callable[[], object] = object
        self.sprung = 0

    def at(self, verb: str) -> bool:
        if verb == self.verb:
            self.sprung += 1
            return True
        return False


class Trapped(FakeReserved):
    def __init__(self, connection: FakeConnection, trap: Trap) -> None:
        super().__init__(connection)
        self.trap = trap

    async def fetch_scalar(self, query: str, /) -> object:
        if self.trap.at("fetch_scalar"):
            return self.trap.spring()
        return await super().fetch_scalar(query)

    def is_closed(self) -> Any:
        return self.trap.spring() if self.trap.at("is_closed") else super().is_closed()

    def in_recovery(self) -> Any:
        return self.trap.spring() if self.trap.at("in_recovery") else super().in_recovery()

    def terminate(self) -> None:
        super().terminate()
        if self.trap.at("terminate"):
            self.trap.spring()


class Hostile(FakeAdapter):
    """Any of its verbs may raise anything."""

    trap: Trap

    async def reserve(self, target: Target, /, **options: Any) -> FakeReserved:
        if self.trap.at("reserve"):
            self.trap.spring()
        return Trapped((await super().reserve(target, **options)).connection, self.trap)

    async def create_pool(self, target: Target, /, **options: Any) -> FakePool:
        if self.trap.at("create_pool"):
            self.trap.spring()
        return await super().create_pool(target, **options)

    async def terminate_pool(self, pool: FakePool, /) -> None:
        await super().terminate_pool(pool)
        if self.trap.at("terminate_pool"):
            self.trap.spring()

    async def _close(self, pool: FakePool) -> None:
        await pool.close()
        if self.trap.at("close_pool"):
            self.trap.spring()

    def close_pool(self, pool: FakePool, /) -> Awaitable[None]:
        return self._close(pool)

    def sqlstate(self, exc: BaseException, /) -> Any:
        return self.trap.spring() if self.trap.at("sqlstate") else super().sqlstate(exc)

    def get_pool_maxsize(self, pool: FakePool, /) -> Any:
        if self.trap.at("get_pool_maxsize"):
            return self.trap.spring()
        return super().get_pool_maxsize(pool)

    def is_connection_closed(self, connection: FakeConnection, /) -> Any:
        if self.trap.at("is_connection_closed"):
            return self.trap.spring()
        return super().is_connection_closed(connection)

    def terminate_connection(self, connection: FakeConnection, /) -> None:
        super().terminate_connection(connection)
        if self.trap.at("terminate_connection"):
            self.trap.spring()


class HostilePooled(Hostile, PooledFakeAdapter):
    """The same, whose monitors take their connections from the pool."""

    room = 1
    reserve = None  # type: ignore[assignment]


def exit_() -> object:
    raise SystemExit("a driver's")


def leave() -> object:
    raise GeneratorExit


def group() -> object:
    raise BaseExceptionGroup("many", [SystemExit(), ValueError()])


def cancel() -> object:
    raise asyncio.CancelledError


def fail() -> object:
    raise RuntimeError("a driver's")


def nonsense() -> object:
    return object()


VERBS = (
    "reserve",
    "create_pool",
    "get_pool_maxsize",
    "terminate_pool",
    "close_pool",
    "fetch_scalar",
    "is_closed",
    "in_recovery",
    "terminate",
    "sqlstate",
    "is_connection_closed",
    "terminate_connection",
)


@pytest.mark.parametrize("spring", [exit_, leave, group, cancel, fail, nonsense])
@pytest.mark.parametrize("verb", VERBS)
@virtual
async def test_nothing_that_an_adapter_does_ends_a_monitor(
    verb: str, spring: Callable[[], object]
) -> None:
    async with Bench(replicas=2, adapter=Hostile, ready=False) as bench:
        assert isinstance(bench.adapter, Hostile)
        trap = bench.adapter.trap = Trap()
        await bench.manager.ready()
        trap.spring = spring
        trap.verb = verb
        bench["db3"].down()
        await asyncio.sleep(2)
        bench["db3"].up()
        bench["db2"].break_connections()
        await asyncio.sleep(2)
        bench["db1"].down()
        bench.network.failover()
        await asyncio.sleep(2)
        trap.verb = ""
        await bench.until_roles("superseded master replica", 12)
        async with bench.manager.acquire() as connection:
            assert connection.server is bench["db2"]


@virtual
async def test_an_adapters_fault_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with Bench(replicas=0, adapter=Hostile, ready=False) as bench:
        assert isinstance(bench.adapter, Hostile)
        trap = bench.adapter.trap = Trap()
        await bench.manager.ready()
        trap.spring, trap.verb = fail, "is_closed"
        await asyncio.sleep(5)
        assert trap.sprung > 50
        assert [r.levelname for r in caplog.records if "but met" in r.message] == ["ERROR"]
        assert bench.roles == "master"
        trap.verb = ""


@virtual
async def test_a_check_that_meets_an_adapters_fault_has_failed_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Bench(adapter=HostilePooled, ready=False) as bench:
        assert isinstance(bench.adapter, Hostile)
        trap = bench.adapter.trap = Trap()
        await bench.manager.ready()
        trap.spring, trap.verb = fail, "get_pool_maxsize"
        bench["db2"].in_recovery = False
        await bench.until(lambda: trap.sprung > 0, 5)
        trap.verb = ""
        assert "db2:5432 unavailable (RuntimeError: a driver's)" in caplog.text
        assert "started anew" not in caplog.text
        bench["db2"].in_recovery = True
        await bench.until_roles("master replica", 3)


@pytest.mark.parametrize("adapter", [Hostile, HostilePooled])
@virtual
async def test_a_pool_whose_size_is_not_told_is_terminated(
    adapter: type[Hostile], caplog: pytest.LogCaptureFixture
) -> None:
    async with Bench(replicas=0, adapter=adapter, ready=False) as bench:
        assert isinstance(bench.adapter, Hostile)
        trap = bench.adapter.trap = Trap()
        trap.spring, trap.verb = fail, "get_pool_maxsize"
        with pytest.raises(NotReadyError) as error:
            await bench.manager.ready(timeout=3)
        assert isinstance(error.value.__cause__, RuntimeError)
        assert trap.sprung > 1
        assert sum("RuntimeError" in record.message for record in caplog.records) == 1
        # Those of the pools that were opened are closed.
        assert bench["db1"].backends <= 1
        trap.verb = ""
        await bench.until_roles("master", 5)
        assert bench.manager.pools


class Filter(logging.Filter):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def filter(self, record: logging.LogRecord) -> bool:
        raise self.error


class Handler(logging.Handler):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def handle(self, record: logging.LogRecord) -> bool:
        raise self.error


@pytest.mark.parametrize("error", [LookupError("no request"), SystemExit(), GeneratorExit()])
@pytest.mark.parametrize("kind", [Filter, Handler])
def test_a_logging_system_that_raises_costs_no_failover(
    kind: type[Filter | Handler], error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("pyscopg2")
    broken = kind(error)
    add, remove = (
        (logger.addFilter, logger.removeFilter)
        if isinstance(broken, Filter)
        else (logger.addHandler, logger.removeHandler)
    )
    add(broken)  # type: ignore[arg-type]

    @virtual
    async def main() -> None:
        async with Bench(replicas=2) as bench:
            bench["db1"].down()
            await bench.check()
            bench.network.failover()
            await bench.until_roles("superseded master replica", 3)
            async with bench.manager.acquire() as connection:
                assert connection.server is bench["db2"]
            held = await bench.manager.acquire_replica()
            bench["db3"].freeze()
            await asyncio.sleep(15)  # so that it is terminated, which is told
            await bench.manager.release(held)

    try:
        main()
    finally:
        remove(broken)  # type: ignore[arg-type]


class Moody(RoundRobinBalancerPolicy):
    def choose(self, candidates: Any) -> Any:
        raise SystemExit("a policy's")


@virtual
async def test_a_policy_that_raises_is_told_to_the_one_for_whom_it_was_asked() -> None:
    async with Bench(replicas=2, balancer_policy=Moody) as bench:
        held = await bench.manager.acquire()
        bench["db2"].down()
        bench["db3"].down()
        await bench.check()
        waiting = start(_caught(bench.manager.acquire_replica(timeout=5)))
        await asyncio.sleep(0.1)
        bench["db2"].up()
        bench["db3"].up()
        assert isinstance(await waiting, FakeConnection | SystemExit)
        await bench.until_roles("master replica replica", 3)
        await bench.manager.release(held)
        result = await waiting
        if isinstance(result, FakeConnection):
            await bench.manager.release(result)


async def _caught(work: Awaitable[Any]) -> object:
    try:
        return await work
    except SystemExit as exc:
        return exc


@virtual
async def test_a_monitor_that_ended_all_the_same_is_started_anew(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Bench() as bench:
        delay, spring = Attention.delay, [leave]

        def die(attention: Attention, host: HostState, failures: int, least: float) -> float:
            if spring and host.address == "db2:5432":
                spring.pop()()
            return delay(attention, host, failures, least)

        monkeypatch.setattr(Attention, "delay", die)
        suspect(bench.manager, "db2:5432")
        await bench.until(lambda: bench.role("db2") == "unavailable", 0.2)
        await bench.until_roles("master replica", 3)
        assert "ended, and is started anew" in caplog.text
        bench["db2"].down()
        await bench.until_roles("master unavailable", 3)


# Opening and asking are two things


@virtual
async def test_a_host_far_away_comes_into_service() -> None:
    bench = Bench(ready=False, pool_factory_kwargs={"min_size": 5})

    async with bench:
        for name in ("db1", "db2"):
            bench[name].latency = 0.235
            bench[name].round_trips = 6
        await bench.manager.ready(timeout=30)
        async with bench.manager.acquire():
            pass
        # Frozen, it is out within the refresh timeout of the next check.
        bench["db2"].freeze()
        assert await bench.until(lambda: bench.role("db2") == "unavailable", 3) < 2.5
        bench["db2"].thaw()
        await bench.until_roles("master replica", 30)


@virtual
async def test_the_message_says_which_of_them_was_not_answered() -> None:
    bench = Bench(replicas=1, ready=False)
    bench["db1"].freeze()
    async with bench:
        with pytest.raises(NotReadyError, match=r"db1:5432 unavailable .*no connection within 1 s"):
            await bench.manager.ready(timeout=1.5)
        bench["db1"].thaw()
        await bench.until_roles("master replica", 3)
        bench["db1"].freeze()
        await bench.until_roles("unavailable replica", 3)
        assert "no answer within 1 s" in str(bench.manager.topology["db1:5432"])


@virtual
async def test_a_pool_that_cannot_be_opened_is_an_error_of_its_host() -> None:
    async with Bench(pool_factory_kwargs={"min_size": 2}, ready=False) as bench:
        bench["db2"].refuse_connects_after = 1
        with pytest.raises(NotReadyError, match=r"db2:5432 unavailable .*too many clients"):
            await bench.manager.ready(timeout=3)
        # It is checked over the connection that it has, and its pool is tried again.
        assert bench["db2"].backends == 1
        answer = bench.manager.topology["db2:5432"].answer
        assert answer is not None
        assert answer.in_recovery
        connects = bench["db2"].connects
        await asyncio.sleep(10)
        assert 5 <= bench["db2"].connects - connects <= 60
        bench["db2"].refuse_connects_after = None
        await bench.until_roles("master replica", 3)


@virtual
async def test_a_pool_that_opens_slowly_is_waited_for_while_the_host_answers() -> None:
    class Slow(FakeAdapter):
        async def create_pool(self, target: Target, /, **options: Any) -> FakePool:
            await asyncio.sleep(0.9)
            return await super().create_pool(target, **options)

    async with Bench(adapter=Slow, ready=False) as bench:
        await bench.manager.ready(timeout=5)
        assert 0.9 < now() < 1
        # It is demoted while its new pool opens: that one is given up.
        bench["db1"].restart()
        await asyncio.sleep(0.5)
        assert bench.roles == "master replica"


@virtual
async def test_a_host_that_freezes_while_its_pool_opens_is_out_in_time() -> None:
    class Slow(FakeAdapter):
        async def create_pool(self, target: Target, /, **options: Any) -> FakePool:
            await asyncio.sleep(0.9)
            return await super().create_pool(target, **options)

    async with Bench(replicas=0, adapter=Slow, ready=False) as bench, bench.manager:
        await asyncio.sleep(0.5)
        bench["db1"].freeze()
        assert await bench.until(lambda: bench.role("db1") == "unavailable", 3) < 2.5


@virtual
async def test_a_pool_that_opens_ever_more_slowly_is_given_more_time_each_time() -> None:
    class Slow(FakeAdapter):
        async def create_pool(self, target: Target, /, **options: Any) -> FakePool:
            await asyncio.sleep(10)
            return await super().create_pool(target, **options)

    async with Bench(replicas=0, adapter=Slow, ready=False) as bench:
        await bench.manager.ready(timeout=30)
        assert bench.roles == "master"


@virtual
async def test_a_host_that_is_lost_while_its_pool_opens_is_dialled_for_it_no_more() -> None:
    sizes = {"min_size": 5, "max_size": 5}
    async with Bench(replicas=0, ready=False, pool_factory_kwargs=sizes) as bench, bench.manager:
        bench["db1"].latency = 0.1
        await bench.until(lambda: bench["db1"].connects > 2, 3)
        bench["db1"].freeze()
        await bench.until(lambda: bench.role("db1") == "unavailable", 3)
        await asyncio.sleep(0.1)
        # That of the next check.
        assert len(bench["db1"].flows) <= 1
        bench["db1"].thaw()
        await bench.until_roles("master", 3)


# One connection is enough to look


@virtual
async def test_a_look_at_where_the_address_leads_is_one_connection() -> None:
    sizes = {"min_size": 5, "max_size": 5}
    async with Bench(replicas=1, pool_factory_kwargs=sizes) as bench:
        bench["db1"].down()
        most = 0
        waiting = start(bench.manager.acquire(timeout=10))
        until = now() + 9
        while now() < until:
            await asyncio.sleep(0.001)
            most = max(most, bench["db2"].backends)
        assert most <= 5 + 1 + 1
        with pytest.raises(AcquireTimeoutError):
            await waiting


# Several servers behind one address


class Balancer(FakeNetwork):
    """Addresses behind which there are several servers, taken in turn."""

    def __init__(self, behind: dict[str, list[FakeServer]]) -> None:
        super().__init__({address: servers[0] for address, servers in behind.items()})
        self.behind = behind
        self._turns = dict.fromkeys(behind, 0)

    async def connect(self, address: str, cancel_delay: float = 0.0) -> Any:
        servers = self.behind[address]
        self._turns[address] += 1
        self.servers[address] = servers[self._turns[address] % len(servers)]
        return await super().connect(address, cancel_delay)


@pytest.mark.parametrize("promoted", [0, 1])
@virtual
async def test_reads_and_writes_are_right_after_a_promotion_behind_services(promoted: int) -> None:
    """As Kubernetes' ``-rw`` and ``-ro``."""
    primary = FakeServer("a", address="10.0.0.1:5432")
    standbys = [
        FakeServer("b", in_recovery=True, address="10.0.0.2:5432"),
        FakeServer("c", in_recovery=True, address="10.0.0.3:5432"),
    ]
    rw, ro = "10.9.0.1:5432", "10.9.0.2:5432"
    network = Balancer({rw: [primary], ro: standbys})
    manager = manager_on(FakeAdapter(network), pool_factory_kwargs={"min_size": 4, "max_size": 4})
    await manager.ready()
    held = [await manager.acquire_replica() for _ in range(4)]
    assert {connection.server.name for connection in held} == {"b", "c"}
    for connection in held:
        await manager.release(connection)
    new, other = standbys[promoted], standbys[1 - promoted]
    primary.down()
    new.promote()
    other.timeline = new.timeline
    await asyncio.sleep(0.3)
    network.behind = {rw: [new], ro: [other]}
    until = now() + 1.7
    while now() < until:
        await _use(manager.acquire(timeout=1), "insert during")
        await _use(manager.acquire_replica(timeout=1), "select")
    other.writes.clear()
    for number in range(100):
        await asyncio.sleep(0.01)
        async with manager.acquire() as connection:
            await connection.execute(f"insert {number}")
            assert connection.server is new
        async with manager.acquire_replica() as connection:
            await connection.execute("select 1")
            assert connection.server is other
    assert [host.role.value for host in manager.topology] == ["master", "replica"]
    await manager.terminate()


class Silent(FakeAdapter):
    """Of a driver that keeps nothing of what servers report by themselves."""

    in_recovery = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("adapter", "are_told"),
    [(FakeAdapter, False), (Silent, True)],
    ids=["what comes back tells", "the servers' addresses tell"],
)
@virtual
async def test_reads_leave_what_was_promoted_behind_their_service(
    adapter: type[FakeAdapter], are_told: bool
) -> None:
    """The monitor's own connection leads to the standby that is not."""
    names = {"b": "10.0.0.2:5432", "c": "10.0.0.3:5432"}
    new, other = (
        FakeServer(name, in_recovery=True, address=address if are_told else None)
        for name, address in names.items()
    )
    rw, ro = "10.9.0.1:5432", "10.9.0.2:5432"
    network = Balancer({rw: [FakeServer("a")], ro: [new, other]})
    sizes = {"min_size": 4, "max_size": 4}
    manager = manager_on(adapter(network), pool_factory_kwargs=sizes)
    await manager.ready()
    assert reserved(manager, ro).server is other
    network[rw].down()
    new.promote()
    other.timeline = new.timeline
    network.behind = {rw: [new], ro: [other]}
    async with manager.acquire(timeout=3) as connection:
        assert connection.server is new
    until = now() + 1
    while now() < until:
        await asyncio.gather(*(_use(manager.acquire_replica(), "select") for _ in range(4)))
        await asyncio.sleep(0.01)
    held = [await manager.acquire_replica() for _ in range(4)]
    assert {connection.server.name for connection in held} == {"c"}
    await manager.terminate()


async def _use(acquire: Any, statement: str) -> None:
    try:
        async with acquire as connection:
            await connection.execute(statement)
    except Exception:
        await asyncio.sleep(0.01)


@virtual
async def test_one_server_behind_one_address_keeps_its_pool_whatever_is_promoted() -> None:
    async with Bench(replicas=2) as bench:
        pools = bench.pool("db2"), bench.pool("db3")
        bench.network.failover()
        await bench.until_roles("superseded master replica", 3)
        for _ in range(200):
            async with bench.manager.acquire() as connection:
                await connection.execute("insert")
            async with bench.manager.acquire_replica() as connection:
                await connection.execute("select 1")
            await asyncio.sleep(0.02)
        assert (bench.pool("db2"), bench.pool("db3")) == pools


@virtual
async def test_a_proxy_that_tells_the_state_of_an_earlier_server_is_not_believed() -> None:
    """As a pooler does, which remembers what servers reported when it first met one."""

    class Reserved(FakeReserved):
        def in_recovery(self) -> bool | None:
            return True

    class Stale(FakeAdapter):
        async def reserve(self, target: Target, /, **options: Any) -> FakeReserved:
            return Reserved((await super().reserve(target, **options)).connection)

        def in_recovery(self, connection: FakeConnection, /) -> bool | None:
            return True

    async with Bench(replicas=2, adapter=Stale) as bench:
        bench.network.failover()
        await bench.until_roles("superseded master replica", 3)
        pool = bench.pool("db2")
        for _ in range(300):
            async with bench.manager.acquire() as connection:
                await connection.execute("insert")
            await asyncio.sleep(0.02)
        assert bench.pool("db2") is pool


@virtual
async def test_a_rival_is_looked_at_ever_more_seldom() -> None:
    async with Bench(refresh_delay=1) as bench:
        bench["db2"].in_recovery = False
        await bench.until_roles("master rival")
        await asyncio.sleep(30)
        connects = bench["db2"].connects
        await asyncio.sleep(60)
        assert 4 <= bench["db2"].connects - connects <= 8


@virtual
async def test_a_reserved_connection_is_not_among_the_pools() -> None:
    async with Bench(replicas=0, size=2) as bench:
        held = [await bench.manager.acquire() for _ in range(2)]
        kept = reserved(bench.manager, "db1:5432")
        assert kept not in {*bench.pool("db1").out, *bench.pool("db1").idle}
        assert bench["db1"].backends == 3
        bench["db1"].refuse_connects = FULL
        for connection in held:
            await bench.manager.release(connection)
