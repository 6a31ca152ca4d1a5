"""`close` and `terminate`, in any state; and programs that call neither."""

import asyncio
import contextlib
import gc
import logging
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from tests.core.conftest import (
    Bench,
    Manager,
    Moment,
    cancelled_at,
    manager_on,
    now,
    other_tasks,
    start,
    virtual,
)

from pyscopg2.base import AcquireContext
from pyscopg2.core.dsn import Target
from pyscopg2.core.errors import PoolManagerClosedError
from pyscopg2.testing.fake import (
    FakeAdapter,
    FakeConnection,
    FakeNetwork,
    FakePool,
    FakeQuirks,
    FakeReserved,
    PooledFakeAdapter,
)
from pyscopg2.testing.fake_server import FakeError, FakeServer
from pyscopg2.testing.virtual_time import VirtualTimeLoop, run, settle

State = Callable[[Bench], Awaitable[None]]


async def never_started(bench: Bench) -> None:
    pass


async def just_started(bench: Bench) -> None:
    await bench.manager.__aenter__()


async def starting(bench: Bench) -> None:
    await bench.manager.__aenter__()
    await asyncio.sleep(0.0015)


async def started(bench: Bench) -> None:
    await bench.manager.ready()


async def frozen_at_the_start(bench: Bench) -> None:
    for server in bench.network.servers.values():
        server.freeze()
    await bench.manager.__aenter__()
    await asyncio.sleep(0.5)


async def frozen_later(bench: Bench) -> None:
    await bench.manager.ready()
    for server in bench.network.servers.values():
        server.freeze()


async def frozen_during_a_check(bench: Bench) -> None:
    await frozen_later(bench)
    asked = bench["db1"].queries
    await bench.until(lambda: bench["db1"].queries > asked, 2)


async def unavailable(bench: Bench) -> None:
    await bench.manager.ready()
    for server in bench.network.servers.values():
        server.down()
    await bench.check()


async def frozen_and_unavailable(bench: Bench) -> None:
    await frozen_later(bench)
    await asyncio.sleep(3)


async def connections_out(bench: Bench) -> None:
    await bench.manager.ready()
    await bench.manager.acquire()
    await bench.manager.acquire_replica()


async def connections_out_and_frozen(bench: Bench) -> None:
    await connections_out(bench)
    for server in bench.network.servers.values():
        server.freeze()
    await asyncio.sleep(3)


STATES: list[State] = [
    never_started,
    just_started,
    starting,
    started,
    frozen_at_the_start,
    frozen_later,
    frozen_during_a_check,
    unavailable,
    frozen_and_unavailable,
    connections_out,
    connections_out_and_frozen,
]


async def assert_closed(bench: Bench) -> None:
    bench.assert_nothing_left()
    assert not other_tasks()
    with pytest.raises(PoolManagerClosedError):
        await bench.manager.acquire()
    with pytest.raises(PoolManagerClosedError):
        await bench.manager.ready()


@pytest.mark.parametrize("quirks", [{}, {"terminate_pool_suspends": True}], ids=["", "suspends"])
@pytest.mark.parametrize("state", STATES)
@virtual
async def test_terminate_waits_for_nobody(state: State, quirks: dict[str, Any]) -> None:
    bench = Bench(ready=False, quirks=FakeQuirks(**quirks))
    await state(bench)
    began = now()
    await bench.manager.terminate()
    assert now() - began <= 0.01
    await assert_closed(bench)
    await bench.manager.terminate()
    await bench.manager.close()
    assert now() - began <= 0.01


@pytest.mark.parametrize("state", STATES)
@virtual
async def test_close_is_bounded(state: State) -> None:
    bench = Bench(ready=False, abandon_timeout=60)
    await state(bench)
    began = now()
    await bench.manager.close(5)
    out = state in (connections_out, connections_out_and_frozen)
    assert now() - began == pytest.approx(5 if out else 0.5, abs=0.6)
    await assert_closed(bench)
    await bench.manager.close()
    await bench.manager.terminate()


@virtual
async def test_close_waits_for_connections_that_are_out() -> None:
    async with Bench() as bench:
        held = await bench.manager.acquire()
        closing = start(bench.manager.close())
        await asyncio.sleep(3)
        assert await held.execute("insert") == 1
        assert not closing.done()
        await bench.manager.release(held)
        await closing
        assert now() < 3.1
        assert bench["db1"].writes == ["insert"]


@virtual
async def test_what_is_out_for_too_long_is_terminated() -> None:
    async with Bench() as bench:
        held = await bench.manager.acquire()
        closing = start(bench.manager.close(2))
        bench["db1"].answers["select pg_sleep(60)"] = None
        bench["db1"].freeze()
        with pytest.raises(FakeError):
            await held.execute("select pg_sleep(60)")
        assert now() == pytest.approx(2, abs=0.1)
        await closing
        await bench.manager.release(held)


@virtual
async def test_a_release_that_hangs_while_others_are_waited_for_is_bounded() -> None:
    async with Bench(replicas=0, refresh_timeout=1) as bench:
        one, other = await bench.manager.acquire(), await bench.manager.acquire()
        closing = start(bench.manager.close(60))
        await settle()
        bench.quirks.release_hangs = True
        began = now()
        with pytest.raises(FakeError):
            await bench.manager.release(one)
        assert 1 <= now() - began <= 1.25
        bench.quirks.release_hangs = False
        await bench.manager.release(other)
        await closing


class EndsPoolsLate(FakeAdapter):
    """As one that has a thread to stop first."""

    async def terminate_pool(self, pool: FakePool, /) -> None:
        await asyncio.sleep(0.5)
        pool.terminate()


@virtual
async def test_terminate_does_not_let_a_release_wait_for_its_pool() -> None:
    async with Bench(replicas=0, adapter=EndsPoolsLate, refresh_timeout=1) as bench:
        held = await bench.manager.acquire()
        bench.quirks.release_hangs = True
        releasing = start(bench.manager.release(held))
        await settle()
        began = now()
        ending = start(bench.manager.terminate())
        with pytest.raises(FakeError):
            await releasing
        assert now() == began
        await ending


@pytest.mark.parametrize("end", ["close", "terminate"])
@virtual
async def test_those_who_wait_are_sent_away(end: str) -> None:
    async with Bench(replicas=1, size=1) as bench:
        held = await bench.drain()
        bench["db2"].down()
        await bench.until_roles("master unavailable")
        waiting: list[asyncio.Task[Any]] = [
            start(bench.manager.acquire(timeout=60)),
            start(bench.manager.acquire_replica(timeout=60)),
            start(bench.manager.wait_replicas_ready(1)),
            start(bench.manager.ready(1, 1, 60)),
            start(bench.manager.get_replica_pools()),
        ]
        await settle()
        began = now()
        ending = start(getattr(bench.manager, end)())
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert now() == began
        assert {type(outcome) for outcome in outcomes} == {PoolManagerClosedError}
        for connection in held:
            await bench.manager.release(connection)
        await ending


@virtual
async def test_an_acquire_that_connects_is_sent_away_too() -> None:
    async with Bench(replicas=0) as bench:
        held = await bench.manager.acquire()
        bench["db1"].latency = 0.5
        acquire = start(bench.manager.acquire())
        await settle()
        closing = start(bench.manager.close())
        with pytest.raises(PoolManagerClosedError):
            await acquire
        await bench.manager.release(held)
        await closing


@virtual
async def test_terminate_in_the_turn_in_which_somebody_gave_up_waiting() -> None:
    async with Bench(replicas=0, size=1) as bench:
        await bench.drain()
        waiting = [start(bench.manager.acquire()) for _ in range(2)]
        await settle()
        waiting[0].cancel()
        await bench.manager.terminate()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(o) for o in outcomes] == [asyncio.CancelledError, PoolManagerClosedError]


@virtual
async def test_a_manager_tells_that_it_is_closed_and_why() -> None:
    manager = Bench().manager
    told = [manager.is_closed]
    async with manager:
        await manager.ready()
        held = await manager.acquire()
        told.append(manager.is_closed)
        closing = start(manager.close())
        await settle()
        # From the beginning of the end on.
        told.append(manager.is_closed)
        await manager.release(held)
        await closing
    assert told == [False, False, True]
    for use in (manager.acquire().__aenter__, manager.ready):
        with pytest.raises(PoolManagerClosedError) as error:
            await use()
        assert str(error.value) == (
            "the pool manager is closed: `close` or `terminate` was called, or its `async with`"
            " block has ended. Make a new manager to go on"
        )


@pytest.mark.parametrize("second", ["close", "terminate"])
@virtual
async def test_concurrently(second: str) -> None:
    async with Bench() as bench:
        held = await bench.manager.acquire()
        began = now()
        closing = [start(bench.manager.close(4)), start(bench.manager.close(2))]
        await asyncio.sleep(1)
        await getattr(bench.manager, second)()
        await asyncio.gather(*closing)
        assert now() - began == pytest.approx(2 if second == "close" else 1, abs=0.1)
        assert held.is_closed


@virtual
async def test_a_cancelled_close_terminates() -> None:
    async with Bench() as bench:
        held = await bench.manager.acquire()
        closing = start(bench.manager.close())
        await asyncio.sleep(1)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert held.is_closed
        assert now() < 1.1
        await assert_closed(bench)


@pytest.mark.parametrize("timeout", [-1, "1", None])
@virtual
async def test_a_bad_timeout_closes_nothing(timeout: Any) -> None:
    async with Bench() as bench:
        with pytest.raises((TypeError, ValueError)):
            await bench.manager.close(timeout)
        async with bench.manager.acquire():
            pass


@virtual
async def test_leaving_with_an_exception_terminates() -> None:
    async with Bench() as bench:
        with pytest.raises(LookupError):
            async with bench.manager as manager:
                await manager.acquire()
                bench["db1"].freeze()
                raise LookupError
        assert now() < 0.1
        await assert_closed(bench)


@virtual
async def test_leaving_without_one_closes() -> None:
    async with Bench() as bench:
        async with bench.manager as manager:
            held = await manager.acquire()
            asyncio.get_running_loop().call_later(2, lambda: start(manager.release(held)))
        assert 2 <= now() < 2.1
        await assert_closed(bench)


def test_a_manager_that_was_never_started_can_be_closed() -> None:
    manager = manager_on(FakeAdapter(FakeNetwork.cluster()))
    run(manager.close())
    with pytest.raises(PoolManagerClosedError):
        run(manager.ready())


# Programs that never close


async def use(manager: Manager) -> None:
    await manager.ready()
    async with manager.acquire() as connection:
        await connection.execute("select 1")


async def use_in_line(manager: Manager) -> None:
    await manager.ready()
    for _ in range(10):
        await manager.acquire()
    _kept.append(start(manager.acquire()))
    await asyncio.sleep(0.01)


async def end_during_a_check(manager: Manager) -> None:
    for server in network_of(manager).servers.values():
        server.latency = 0.2
    await manager.ready()
    _kept.append(start(manager.wait_next_pool_check()))
    await asyncio.sleep(0.1)


async def end_while_frozen(manager: Manager) -> None:
    await manager.ready()
    await manager.acquire()
    for server in network_of(manager).servers.values():
        server.freeze()
    await asyncio.sleep(1.7)


async def end_while_starting(manager: Manager) -> None:
    for server in network_of(manager).servers.values():
        server.freeze()
    await manager.__aenter__()
    await asyncio.sleep(0.5)


async def end_by_an_error(manager: Manager) -> None:
    await use(manager)
    await manager.acquire()
    raise LookupError


_kept: list[asyncio.Task[Any]] = []


def network_of(manager: Manager) -> FakeNetwork:
    assert isinstance(manager.adapter, FakeAdapter)
    return manager.adapter.network


@pytest.mark.parametrize(
    "program",
    [use, use_in_line, end_during_a_check, end_while_frozen, end_while_starting, end_by_an_error],
)
def test_a_program_that_never_closes_ends_at_once(
    program: Callable[[Manager], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    manager = manager_on(FakeAdapter(FakeNetwork.cluster()))
    ended = 0.0

    async def main() -> None:
        nonlocal ended
        try:
            await program(manager)
        finally:
            ended = now()

    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.ERROR):
        warnings.simplefilter("always")
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            loop = runner.get_loop()
            try:
                runner.run(main())
            except LookupError:
                assert program is end_by_an_error
        _kept.clear()
        gc.collect()
    # Of no effect any more, but for what is said of those that are forgotten.
    run(manager.close())
    assert loop.time() == ended
    assert [str(warning.message) for warning in warned] == []
    assert caplog.messages == []
    network_of(manager).assert_nothing_left()


class Noting(FakeAdapter):
    """Whose pools forget what is out."""

    def __init__(self, network: FakeNetwork) -> None:
        super().__init__(network)
        self.ended: list[object] = []

    def terminate_connection(self, connection: FakeConnection, /) -> None:
        self.ended.append(connection)
        super().terminate_connection(connection)

    async def terminate_pool(self, pool: FakePool, /) -> None:
        self.ended.append(pool)
        await super().terminate_pool(pool)


@pytest.mark.parametrize("is_given_back", [False, True])
def test_where_nobody_closes_what_users_have_is_terminated_before_its_pool(
    is_given_back: bool,
) -> None:
    adapter = Noting(FakeNetwork.cluster(replicas=1))
    manager = manager_on(adapter)

    async def main() -> tuple[FakePool, list[FakeConnection]]:
        await manager.ready()
        pool = await manager.get_pool(read_only=False)
        held = [await manager.acquire_master() for _ in range(2)]
        if is_given_back:
            await manager.release(held.pop())
        return pool, held

    pool, held = run(main())
    before = adapter.ended[: adapter.ended.index(pool)]
    assert [each for each in before if isinstance(each, FakeConnection)] == held
    adapter.network.assert_nothing_left()
    run(manager.close())


@virtual
async def test_a_closed_manager_has_no_pools() -> None:
    async with Bench(replicas=1) as bench:
        manager = bench.manager
        master, replica = manager.pools
        assert manager.pool_is_master(master)
        assert manager.pool_is_replica(replica)
        await manager.close()
        assert manager.pools == ()
        assert not manager.pool_is_master(master)
        assert not manager.pool_is_replica(replica)
        counts = manager.master_pool_count, manager.replica_pool_count, manager.available_pool_count
        assert counts == (0, 0, 0)


class Leisurely(FakeAdapter):
    """Lets the loop run a few times before a pool is terminated."""

    async def terminate_pool(self, pool: FakePool, /) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        pool.terminate()


@virtual
async def test_a_pool_that_does_not_close_is_terminated_to_the_end() -> None:
    sizes = {"min_size": 3, "max_size": 3}
    bench = Bench(adapter=Leisurely, refresh_timeout=0.2, pool_factory_kwargs=sizes)
    await bench.manager.ready()
    bench["db1"].cut_flows()
    began = now()
    await bench.manager.close(1)
    assert now() - began < 0.41
    bench.assert_nothing_left()


@virtual
async def test_terminate_in_the_turn_of_a_close_ends_the_pools_at_once() -> None:
    sizes = {"min_size": 3, "max_size": 3}
    bench = Bench(adapter=Leisurely, refresh_timeout=0.2, pool_factory_kwargs=sizes)
    await bench.manager.ready()
    bench["db1"].freeze()
    began = now()
    await asyncio.gather(bench.manager.close(100), bench.manager.terminate())
    assert now() - began < 0.01
    bench.assert_nothing_left()


@virtual
async def test_terminate_in_the_turn_in_which_a_new_pool_finds_the_master() -> None:
    network = FakeNetwork.cluster(1)
    ends: list[asyncio.Task[None]] = []

    class Adapter(PooledFakeAdapter):
        async def fetch_scalar(self, connection: FakeConnection, query: str, /) -> object:
            answer = await super().fetch_scalar(connection, query)
            if connection.server.name == "new" and not ends:
                ends.append(start(manager.terminate()))
                await asyncio.sleep(0)
            return answer

    manager = manager_on(Adapter(network))
    await manager.ready()
    network["db1:5432"].down()
    waiter = start(manager.acquire(timeout=20))
    await asyncio.sleep(3)
    network.servers["db2:5432"] = FakeServer("new", in_recovery=False, timeline=2)
    await asyncio.wait([waiter])
    assert isinstance(waiter.exception(), PoolManagerClosedError)
    await ends[0]
    assert manager.pools == ()
    network.assert_nothing_left()


def test_a_program_that_never_closes_leaves_no_retired_pool() -> None:
    network = FakeNetwork.cluster(0)
    manager = manager_on(FakeAdapter(network))

    async def main() -> None:
        await manager.ready()
        await manager.acquire()
        network["db1:5432"].freeze()
        while manager.topology["db1:5432"].pool is not None:
            await asyncio.sleep(0.1)
        network["db1:5432"].thaw()

    run(main())
    network.assert_nothing_left()
    run(manager.close())


@virtual
async def test_who_was_served_in_the_turn_of_the_end_is_sent_away_at_once() -> None:
    async with Bench(size=1) as bench:
        held = await bench.manager.acquire()
        waiter = start(bench.manager.acquire(timeout=5))
        await settle()
        began = now()
        # Nothing else runs between these two: the slot is handed over, the waiter still asleep.
        await bench.manager.release(held)
        await bench.manager.terminate()
        with pytest.raises(PoolManagerClosedError):
            await waiter
        assert now() < began + 1


@virtual
async def test_terminate_in_the_turn_in_which_a_new_connection_finds_the_master() -> None:
    network = FakeNetwork.cluster(1)
    ends: list[asyncio.Task[None]] = []

    class Reserved(FakeReserved):
        async def fetch_scalar(self, query: str, /) -> object:
            answer = await super().fetch_scalar(query)
            if self.connection.server.name == "new" and not ends:
                ends.append(start(manager.terminate()))
                await asyncio.sleep(0)
            return answer

    class Adapter(FakeAdapter):
        async def reserve(self, target: Target, /, **options: Any) -> FakeReserved:
            return Reserved((await super().reserve(target, **options)).connection)

    manager = manager_on(Adapter(network))
    await manager.ready()
    network["db1:5432"].down()
    waiter = start(manager.acquire(timeout=20))
    await asyncio.sleep(3)
    network.servers["db2:5432"] = FakeServer("new", in_recovery=False, timeline=2)
    await asyncio.wait([waiter])
    assert isinstance(waiter.exception(), PoolManagerClosedError)
    await ends[0]
    assert manager.pools == ()
    network.assert_nothing_left()


@pytest.mark.parametrize("moment", ["waiting", "woken"])
@pytest.mark.parametrize("step", range(1, 9))
@virtual
async def test_terminate_at_each_step_of_the_start_leaves_nothing(
    step: int, moment: Moment
) -> None:
    """The connects, the first question, the pool's opening: whichever is under way."""
    bench = Bench(replicas=0, ready=False)
    task = await cancelled_at(_started(bench), step, moment)
    assert task.cancelled() or task.exception() is None
    await bench.manager.terminate()
    bench.assert_nothing_left()


async def _started(bench: Bench) -> None:
    manager = bench.manager
    async with manager:
        pass


# Forgotten


def said_of(use: Callable[[], object]) -> list[str]:
    """What is said of the managers that are forgotten with what this has used."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        use()
        gc.collect()
    assert {each.category for each in said} <= {ResourceWarning}
    return [str(each.message) for each in said]


@pytest.mark.parametrize("fails", [True, False])
def test_one_that_is_forgotten_unclosed_says_so(fails: bool) -> None:
    network = FakeNetwork.cluster(1)

    async def main() -> None:
        manager = manager_on(FakeAdapter(network))
        async with manager.acquire():
            if fails:
                raise LookupError

    def use() -> None:
        with pytest.raises(LookupError) if fails else contextlib.nullcontext():
            run(main())

    assert said_of(use) == ["unclosed pool manager of db1:5432, db2:5432"]


@pytest.mark.parametrize("end", ["close", "terminate", "block", "close after its loop"])
def test_one_that_is_closed_is_silent(end: str) -> None:
    network = FakeNetwork.cluster(1)

    async def main(manager: Manager) -> None:
        if end == "block":
            async with manager:
                await manager.ready()
            return
        async with manager.acquire():
            pass
        if hasattr(manager, end):
            await getattr(manager, end)()

    def use() -> None:
        manager = manager_on(FakeAdapter(network))
        run(main(manager))
        if not hasattr(manager, end) and end != "block":
            run(manager.close())
            with pytest.raises(PoolManagerClosedError):
                run(manager.ready())

    assert said_of(use) == []
    network.assert_nothing_left()


def test_one_that_never_began_is_silent() -> None:
    network = FakeNetwork.cluster(1)

    def fail() -> None:
        for dsn, settings in ((None, {"acquire_timeout": "1"}), ("host=a,b port=1,2,3", {})):
            with pytest.raises((TypeError, ValueError)):
                manager_on(FakeAdapter(network), dsn, **settings)

    assert said_of(lambda: manager_on(FakeAdapter(network))) == []
    assert said_of(fail) == []


@virtual
async def test_each_who_waits_gets_an_error_of_its_own() -> None:
    async with Bench(replicas=1, size=1) as bench:
        manager = bench.manager
        bench["db2"].down()
        await bench.until_roles("master unavailable")
        held = await manager.acquire()
        waiting: list[Coroutine[Any, Any, object]] = [
            *(_entered(manager.acquire(timeout=60)) for _ in range(3)),
            *(_entered(manager.acquire_from_pool(bench.pool("db1"))) for _ in range(2)),
            *(manager.wait_replicas_ready(1) for _ in range(3)),
            *(manager.ready(1, 1, timeout=60) for _ in range(2)),
            manager.get_replica_pools(),
        ]
        tasks = [start(each) for each in waiting]
        await settle()
        closing = start(manager.close(timeout=1))
        await asyncio.wait(tasks)
        await manager.release(held)
        await closing
        errors = [task.exception() for task in tasks]
        assert all(isinstance(error, PoolManagerClosedError) for error in errors)
        assert len(set(map(id, errors))) == len(tasks)
        assert not any(error.__context__ or error.__cause__ for error in errors if error)


async def _entered(acquiring: AcquireContext[FakeConnection]) -> None:
    async with acquiring:
        raise AssertionError("there was a connection")
