"""One deadline for each acquire, bounded releases, and blocks that end honestly."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.conftest import Bench, break_one, in_use, now, out, recorded, start, virtual

from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.testing.fake import (
    FakeAdapter,
    FakeConnection,
    FakeNetwork,
    FakePool,
    FakeQuirks,
    PooledFakeAdapter,
)
from pyscopg2.testing.fake_server import FakeError
from pyscopg2.testing.virtual_time import settle

SLOW = {"cancel_delay": 11.0}

# One deadline


@pytest.mark.parametrize("timeout", [0, 0.05, 0.5, 3])
@pytest.mark.parametrize("quirks", [{}, SLOW])
@pytest.mark.parametrize("connects", [True, False])
@virtual
async def test_an_acquire_never_outlives_its_timeout(
    timeout: float, quirks: dict[str, Any], connects: bool
) -> None:
    async with Bench(replicas=0, size=2, quirks=FakeQuirks(**quirks)) as bench:
        held = await bench.drain() if not connects else [await bench.manager.acquire()]
        bench["db1"].freeze()
        began = now()
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire(timeout=timeout)
        assert now() == pytest.approx(began + timeout, abs=1e-6)
        bench["db1"].thaw()
        for connection in held:
            await bench.manager.release(connection)
        await asyncio.sleep(12)
        assert in_use(bench.manager) == 0


@pytest.mark.parametrize("quirks", [{}, SLOW])
@virtual
async def test_what_a_slow_driver_still_holds_keeps_its_slot(quirks: dict[str, Any]) -> None:
    async with Bench(replicas=0, size=2, quirks=FakeQuirks(**quirks), refresh_timeout=60) as bench:
        held = await bench.manager.acquire()
        bench["db1"].freeze()
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire(timeout=1)
        assert in_use(bench.manager) == (2 if quirks else 1)
        await asyncio.sleep(11.1)
        assert in_use(bench.manager) == 1
        bench["db1"].thaw()
        await bench.manager.release(held)


@pytest.mark.parametrize("quirks", [{}, SLOW])
@virtual
async def test_an_acquire_leaves_a_host_that_freezes_under_it(quirks: dict[str, Any]) -> None:
    async with Bench(replicas=2, size=2, quirks=FakeQuirks(**quirks)) as bench:
        held = [await bench.manager.acquire_from_pool(bench.pool(n)) for n in ("db2", "db3", "db3")]
        bench["db2"].freeze()
        acquire = start(bench.manager.acquire(True, timeout=9))
        await bench.until_roles("master unavailable replica", 2.3)
        await settle()
        assert not acquire.done()
        await bench.manager.release(held.pop())
        connection = await acquire
        assert connection.server is bench["db3"]
        assert now() < 2.4
        releases = (bench.manager.release(each) for each in (*held, connection))
        await asyncio.gather(*releases, return_exceptions=True)


@virtual
async def test_an_acquire_leaves_a_host_that_is_overdue_under_it() -> None:
    """Long before its check has failed, or the connect counts as slow."""
    async with Bench(replicas=2, size=2, refresh_timeout=5, refresh_delay=60) as bench:
        held = [await bench.manager.acquire_from_pool(bench.pool(n)) for n in ("db2", "db3", "db3")]
        bench["db2"].freeze()
        acquire = start(bench.manager.acquire(True, timeout=9))
        await settle()
        await bench.manager.release(held.pop())
        began = now()
        connection = await acquire
        assert connection.server is bench["db3"]
        assert now() - began < 0.3
        bench["db2"].thaw()
        for each in (*held, connection):
            await bench.manager.release(each)


@virtual
async def test_a_timer_that_is_early_by_the_clocks_resolution_has_rung() -> None:
    """Or the acquire would try again and again in that moment, which may be long elsewhere."""
    async with Bench(replicas=0, size=2, refresh_delay=60) as bench:
        await bench.manager.acquire()
        bench["db1"].freeze()
        acquire = start(bench.manager.acquire(timeout=0.05))
        await asyncio.sleep(0)

        async def count_turns() -> int:
            turns = 0
            while not acquire.done() and turns < 1000:
                turns += 1
                await asyncio.sleep(0)
            return turns

        early = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_at(now() + 0.05 - 4e-10, early.set_result, None)
        await early
        turns = await count_turns()
        acquire.cancel()
        await asyncio.wait([acquire])
        assert turns < 20
        bench["db1"].thaw()


@virtual
async def test_the_drivers_own_timeout_is_a_failed_connect() -> None:
    async with Bench(replicas=0) as bench:
        await bench.manager.acquire()
        bench["db1"].latency = 0.4
        with pytest.raises(AcquireTimeoutError) as error:
            await bench.manager.acquire_from_pool(bench.pool("db1"), timeout=0.1)
        assert type(error.value.__cause__) is TimeoutError


class Impatient(FakeAdapter):
    """Its waits have timeouts of their own inside, as many drivers' have."""

    async def acquire_from_pool(self, pool: FakePool, /, **kwargs: object) -> FakeConnection:
        try:
            return await pool.acquire()
        except asyncio.CancelledError:
            for _ in range(20):
                try:
                    async with asyncio.timeout(0.1):
                        await asyncio.sleep(60)
                except TimeoutError:
                    continue
            raise

    async def release_to_pool(
        self, connection: FakeConnection, pool: FakePool, /, **kwargs: object
    ) -> None:
        for _ in range(3):
            try:
                async with asyncio.timeout(0.1):
                    await asyncio.sleep(60)
            except TimeoutError:
                continue
        await pool.release(connection)


@pytest.mark.xfail(
    strict=True,
    reason="what remains of an interrupted acquire runs in another task, while the driver's own"
    " timeouts cancel the task in which they were entered: the user's",
)
@virtual
async def test_the_timeouts_of_a_driver_left_behind_do_not_cancel_the_user() -> None:
    async with Bench(replicas=0, adapter=Impatient) as bench:
        held = await bench.manager.acquire()
        bench["db1"].latency = 10

        async def use() -> str:
            with pytest.raises(AcquireTimeoutError):
                await bench.manager.acquire(timeout=0.5)
            await asyncio.sleep(3)
            return "done"

        user = start(use())
        await asyncio.wait([user])
        bench["db1"].latency = 0.001
        held.terminate()
        assert not user.cancelled()
        assert user.result() == "done"


@virtual
async def test_a_driver_may_use_timeouts_in_its_release() -> None:
    async with Bench(replicas=0, adapter=Impatient) as bench:
        connection = await bench.manager.acquire()
        began = now()
        release = start(bench.manager.release(connection))
        await asyncio.wait([release])
        assert not release.cancelled()
        assert release.exception() is None
        assert now() == pytest.approx(began + 0.3, abs=0.01)


@virtual
async def test_the_timeouts_of_a_release_left_behind_do_not_cancel_the_user() -> None:
    async with Bench(replicas=0, adapter=Impatient) as bench:
        connection = await bench.manager.acquire()

        async def use() -> str:
            release = bench.manager.release(connection)
            try:
                async with asyncio.timeout(0.05):
                    await release
            except TimeoutError:
                await asyncio.sleep(3)
            return "done"

        user = start(use())
        await asyncio.wait([user])
        assert not user.cancelled()
        assert user.result() == "done"


# Giving back


@pytest.mark.parametrize("hangs", ["frozen", "release_hangs"])
@virtual
async def test_a_release_that_hangs_is_bounded(hangs: str) -> None:
    async with Bench(replicas=0, refresh_timeout=2, refresh_delay=60) as bench:
        connection = await bench.manager.acquire()
        if hangs == "frozen":
            bench["db1"].freeze()
        else:
            bench.quirks.release_hangs = True
        began = now()
        with pytest.raises(FakeError):
            await bench.manager.release(connection)
        assert began + 2 <= now() <= began + 2.5
        assert connection.is_closed
        await settle()
        assert in_use(bench.manager) == 0


@pytest.mark.parametrize("hangs", [True, False])
@virtual
async def test_a_cancelled_release_leaves_at_once_and_frees_the_slot(hangs: bool) -> None:
    async with Bench(replicas=0, size=1) as bench:
        connection = await bench.manager.acquire()
        bench.quirks.release_hangs = hangs
        release = start(bench.manager.release(connection))
        await asyncio.sleep(0)
        release.cancel()
        began = now()
        await asyncio.wait([release])
        assert release.cancelled()
        assert now() == began
        bench.quirks.release_hangs = False
        async with bench.manager.acquire(timeout=3):
            pass


@virtual
async def test_a_failed_reset_frees_the_slot() -> None:
    async with Bench(replicas=0, size=1) as bench:
        connection = await bench.manager.acquire()
        release = start(bench.manager.release(connection))
        await settle()
        bench["db1"].break_connections()
        with pytest.raises(ConnectionResetError):
            await release
        assert recorded(bench.manager) == 0
        async with bench.manager.acquire():
            pass


# Blocks


@virtual
async def test_a_block_commits_or_rolls_back_as_the_driver_does() -> None:
    async with Bench(quirks=FakeQuirks(commits_at_end=True)) as bench:
        async with bench.manager.acquire() as connection:
            await connection.execute("insert 1")
        with pytest.raises(LookupError):
            async with bench.manager.acquire() as connection:
                await connection.execute("insert 2")
                raise LookupError
        connection = await bench.manager.acquire()
        await connection.execute("insert 3")
        await bench.manager.release(connection)
        assert bench["db1"].writes == ["insert 1"]


@virtual
async def test_a_terminated_block_does_not_end_silently() -> None:
    async with Bench(quirks=FakeQuirks(commits_at_end=True)) as bench:
        with pytest.raises(FakeError):
            async with bench.manager.acquire() as connection:
                await connection.execute("insert")
                bench.network.failover(old_stays=True)
                await bench.until_roles("superseded master")
        assert bench["db1"].writes == []
        assert in_use(bench.manager) == 0


@pytest.mark.parametrize("end", ["freeze", "cut_flows"])
@virtual
async def test_a_commit_that_hangs_is_bounded_and_raises(end: str) -> None:
    async with Bench(quirks=FakeQuirks(commits_at_end=True), refresh_delay=60) as bench:
        with pytest.raises(FakeError):
            async with bench.manager.acquire() as connection:
                await connection.execute("insert")
                getattr(bench["db1"], end)()
        assert 1 <= now() <= 1.25 + 0.1
        bench["db1"].thaw()
        await asyncio.sleep(5)
        assert bench["db1"].writes == []
        assert in_use(bench.manager) == 0


@pytest.mark.parametrize("commits_at_end", [True, False])
@virtual
async def test_the_blocks_own_error_is_not_hidden_by_a_release_that_fails(
    commits_at_end: bool,
) -> None:
    async with Bench(quirks=FakeQuirks(commits_at_end=commits_at_end)) as bench:
        with pytest.raises(LookupError):
            async with bench.manager.acquire():
                bench["db1"].freeze()
                raise LookupError
        bench["db1"].thaw()


@pytest.mark.parametrize("commits_at_end", [True, False])
@virtual
async def test_a_timeout_around_a_block_on_a_frozen_host_is_a_timeout(commits_at_end: bool) -> None:
    quirks = FakeQuirks(commits_at_end=commits_at_end)
    async with Bench(quirks=quirks) as bench:
        began = now()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), bench.manager.acquire() as connection:
                bench["db1"].freeze()
                await connection.execute("insert")
        # The block's time, then a rollback or a reset that is not answered.
        assert now() <= began + 0.5 + 1.25 + 0.1
        await asyncio.sleep(1)
        assert in_use(bench.manager) == 0


@virtual
async def test_a_block_may_release_its_connection_by_itself() -> None:
    async with Bench() as bench:
        async with bench.manager.acquire() as connection:
            await bench.manager.release(connection)
        assert in_use(bench.manager) == 0


@virtual
async def test_a_connection_that_the_manager_ended_is_given_back_already() -> None:
    async with Bench() as bench:
        held = await bench.manager.acquire()
        bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master")
        await settle()
        assert in_use(bench.manager) == 0
        await bench.manager.release(held)
        with pytest.raises(ValueError):
            await bench.manager.release(held)


@virtual
async def test_a_block_that_gave_an_ended_connection_back_does_not_end_it_again() -> None:
    async with Bench(quirks=FakeQuirks(commits_at_end=True)) as bench:
        async with bench.manager.acquire() as connection:
            bench.network.failover(old_stays=True)
            await bench.until_roles("superseded master")
            await settle()
            await bench.manager.release(connection)
        assert in_use(bench.manager) == 0


@virtual
async def test_a_role_that_changes_during_a_connect_is_noticed() -> None:
    async with Bench(refresh_delay=60) as bench:
        held = await bench.manager.acquire()
        bench["db1"].latency = 0.1
        acquire = start(bench.manager.acquire(timeout=0.5))
        await asyncio.sleep(0.05)
        bench["db1"].in_recovery = True
        bench["db1"].latency = 0.001
        await bench.check()
        with pytest.raises(AcquireTimeoutError):
            await acquire
        await bench.manager.release(held)
        assert in_use(bench.manager) == 0


@virtual
async def test_a_block_that_gave_its_connection_back_ends_nobody_elses_transaction() -> None:
    quirks = FakeQuirks(commits_at_end=True)
    async with Bench(replicas=0, size=1, quirks=quirks) as bench:
        async with bench.manager.acquire() as connection:
            await bench.manager.release(connection)
            other = await bench.manager.acquire()
            assert other is connection
            await other.execute("insert half of it")
        assert bench["db1"].writes == []
        assert other.is_in_transaction
        await bench.manager.release(other)


@virtual
async def test_a_release_that_the_block_began_by_itself_stays_bounded() -> None:
    async with Bench(quirks=FakeQuirks(release_hangs=True), refresh_timeout=1) as bench:
        async with bench.manager.acquire() as connection:
            releasing = start(bench.manager.release(connection))
            await settle()
        began = now()
        with pytest.raises(FakeError):
            async with asyncio.timeout(10):
                await releasing
        assert now() - began < 2
        assert in_use(bench.manager) == 0


@virtual
async def test_an_end_that_raises_at_once_gives_the_connection_back() -> None:
    class Adapter(FakeAdapter):
        def end_block(self, connection: FakeConnection, exc: BaseException | None, /) -> Any:
            raise LookupError("the end's")

    async with Bench(adapter=Adapter) as bench:
        with pytest.raises(LookupError, match="the end's"):
            async with bench.manager.acquire():
                pass
        assert in_use(bench.manager) == 0


class Sparing:
    """An adapter that hands on what it is asked, but for some verbs."""

    def __init__(self, adapter: object, *spared: str) -> None:
        self._adapter = adapter
        self._spared = spared

    def __getattr__(self, name: str) -> Any:
        if name in self._spared:
            raise AttributeError(name)
        return getattr(self._adapter, name)


def sparing(*verbs: str) -> Any:
    def make(network: FakeNetwork, quirks: FakeQuirks) -> Sparing:
        return Sparing(PooledFakeAdapter(network, quirks), *verbs)

    return make


@pytest.mark.parametrize("commits", [True, False])
@virtual
async def test_a_block_ends_by_the_adapter_if_it_has_a_verb_for_that(commits: bool) -> None:
    spared = () if commits else ("end_block",)

    quirks = FakeQuirks(commits_at_end=True)
    async with Bench(quirks=quirks, adapter=sparing(*spared)) as bench:
        async with bench.manager.acquire() as connection:
            await connection.execute("insert")
        assert bench["db1"].writes == (["insert"] if commits else [])
        assert in_use(bench.manager) == 0


@pytest.mark.parametrize("spared", [(), ("close_pool",)])
@virtual
async def test_a_pool_ends_by_a_verb_that_the_adapter_has(spared: tuple[str, ...]) -> None:
    async with Bench(adapter=sparing(*spared)) as bench:
        async with bench.manager.acquire():
            pass
        await bench.manager.close()
        bench.network.assert_nothing_left()


# Drivers that have a connection back before they say so


class Early(FakeAdapter):
    """Says that a release is done when the gate is open, and again when it is told to."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gate = asyncio.Event()
        self.returned: list[Callable[[], None]] = []
        self.is_silent = False
        self.then: Callable[[], object] = bool

    async def return_to_pool(
        self,
        connection: FakeConnection,
        pool: FakePool,
        returned: Callable[[], None],
        /,
    ) -> None:
        self.returned.append(returned)
        await pool.release(connection)
        if not self.is_silent:
            returned()
            self.then()
        await self.gate.wait()


def early(bench: Bench) -> Early:
    assert isinstance(bench.adapter, Early)
    return bench.adapter


@virtual
async def test_who_waits_gets_what_came_back_before_its_release_ends() -> None:
    async with Bench(replicas=0, size=1, adapter=Early) as bench:
        adapter = early(bench)
        held = await bench.manager.acquire()
        waiter = start(bench.manager.acquire())
        await settle()
        releasing = start(bench.manager.release(held))
        assert await waiter is held
        assert not releasing.done()
        assert in_use(bench.manager) == 1
        # It is the waiter's by now, and no watchdog bites it for the release that goes on.
        await asyncio.sleep(10)
        assert await waiter.result().fetch_scalar("select 1") == 1
        adapter.gate.set()
        await releasing
        assert in_use(bench.manager) == 1
        await bench.manager.release(held)
        assert in_use(bench.manager) == 0


@virtual
async def test_what_came_back_and_nobody_took_is_not_bitten_while_its_release_goes_on() -> None:
    async with Bench(replicas=0, size=1, adapter=Early) as bench:
        adapter = early(bench)
        held = await bench.manager.acquire()
        waiter = start(bench.manager.acquire())
        await settle()
        adapter.then = waiter.cancel
        releasing = start(bench.manager.release(held))
        await asyncio.sleep(10)
        assert waiter.cancelled()
        assert in_use(bench.manager) == 0
        assert not held.is_closed
        adapter.gate.set()
        await releasing


@virtual
async def test_a_connection_that_is_registered_on_its_way_back_costs_nobody_a_slot() -> None:
    """Nobody should, while it is being released."""
    async with Bench(replicas=0, size=1, adapter=Early) as bench:
        adapter = early(bench)
        bench["db1"].freeze()
        held = await bench.manager.acquire()
        waiter = start(bench.manager.acquire())
        await settle()
        releasing = [start(bench.manager.release(held))]
        await settle()
        bench.manager.register_connection(held, bench.pool("db1"))
        releasing.append(start(bench.manager.release(held)))
        await settle()
        bench["db1"].thaw()
        adapter.gate.set()
        first, second = await asyncio.gather(*releasing, return_exceptions=True)
        assert first is None
        assert isinstance(second, FakeError)  # the driver's: it has it back already
        await bench.manager.release(await waiter)
        assert (in_use(bench.manager), recorded(bench.manager)) == (0, 0)


class Late(FakeAdapter):
    """Its release goes on when its pool has the connection already."""

    def __init__(self, network: FakeNetwork, quirks: FakeQuirks | None = None) -> None:
        super().__init__(network, quirks)
        self.gate = asyncio.Event()
        self.gate.set()

    async def release_to_pool(
        self, connection: FakeConnection, pool: FakePool, /, **kwargs: Any
    ) -> None:
        await super().release_to_pool(connection, pool, **kwargs)
        await self.gate.wait()


@virtual
async def test_a_release_that_goes_on_is_not_taken_for_that_of_the_next_user() -> None:
    async with Bench(replicas=0, size=2, adapter=Late) as bench:
        assert isinstance(bench.adapter, Late)
        held = await bench.manager.acquire()
        bench.adapter.gate.clear()
        releasing = start(bench.manager.release(held))
        await bench.until(lambda: held in bench.pool("db1").idle, 1)
        assert await bench.manager.acquire() is held
        assert not releasing.done()
        bench.adapter.gate.set()
        await releasing
        assert (in_use(bench.manager), out(bench.manager)) == (1, [held])
        await bench.manager.release(held)
        assert (in_use(bench.manager), recorded(bench.manager)) == (0, 0)


@pytest.mark.parametrize("in_time", [True, False])
@virtual
async def test_a_slot_is_free_once_however_often_the_driver_says_so(in_time: bool) -> None:
    async with Bench(replicas=0, size=1, adapter=Early) as bench:
        adapter = early(bench)
        held = await bench.manager.acquire()
        waiters = [start(bench.manager.acquire()) for _ in range(2)]
        await settle()
        if not in_time:
            bench["db1"].freeze()
        releasing = start(bench.manager.release(held))
        await (waiters[0] if in_time else settle())
        releasing.cancel()
        await asyncio.wait([releasing])
        bench["db1"].thaw()
        await waiters[0]
        (returned,) = adapter.returned
        returned()
        await settle()
        assert in_use(bench.manager) == 1
        assert not waiters[1].done()
        adapter.gate.set()
        await bench.manager.release(await waiters[0])
        await bench.manager.release(await waiters[1])
        assert in_use(bench.manager) == 0


@pytest.mark.parametrize("broken", [True, False])
@virtual
async def test_a_connection_of_which_nothing_is_said_is_taken_for_broken(broken: bool) -> None:
    async with Bench(replicas=0, size=1, adapter=Early, refresh_delay=60) as bench:
        adapter = early(bench)
        adapter.gate.set()
        adapter.is_silent = broken
        held = await bench.manager.acquire()
        await asyncio.sleep(1)
        waiter = start(bench.manager.acquire())
        await settle()
        queries = bench["db1"].queries
        await bench.manager.release(held)
        # Less than the time after which who waits makes a host suspected.
        await asyncio.sleep(0.04)
        assert (bench["db1"].queries > queries) is broken
        await waiter


@virtual
async def test_nobody_waits_so_nothing_is_told_early() -> None:
    async with Bench(replicas=0, adapter=Early) as bench:
        adapter = early(bench)
        await bench.manager.release(await bench.manager.acquire())
        assert adapter.returned == []


@virtual
async def test_a_connection_that_comes_back_closed_has_its_host_checked() -> None:
    async with Bench(replicas=0, refresh_delay=60) as bench:
        connection = await bench.manager.acquire()
        queries = bench["db1"].queries
        break_one(connection)
        with contextlib.suppress(ConnectionResetError):
            await bench.manager.release(connection)
        await asyncio.sleep(0.5)
        assert bench["db1"].queries > queries


class Stubborn(FakeAdapter):
    """An acquire goes on to its end, however often it is cancelled."""

    async def acquire_from_pool(self, pool: FakePool, /, **kwargs: Any) -> FakeConnection:
        acquiring = asyncio.ensure_future(super().acquire_from_pool(pool, **kwargs))
        while not acquiring.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(acquiring)
        return acquiring.result()


@virtual
async def test_what_comes_when_nobody_waits_for_it_any_more_is_cut_off() -> None:
    async with Bench(replicas=0, size=2, adapter=Stubborn, refresh_timeout=9) as bench:
        held = await bench.manager.acquire()
        backends = bench["db1"].backends
        bench["db1"].latency = 1
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire(timeout=0.5)
        await asyncio.sleep(10)
        bench["db1"].latency = 0.001
        assert bench["db1"].backends == backends
        assert in_use(bench.manager) == 1
        await bench.manager.release(held)


class TakesNoDeadBack(Stubborn):
    async def release_to_pool(
        self, connection: FakeConnection, pool: FakePool, /, **kwargs: Any
    ) -> None:
        if connection.is_closed:
            await asyncio.Event().wait()
        await super().release_to_pool(connection, pool, **kwargs)


@virtual
async def test_a_driver_that_takes_no_dead_connection_back_keeps_no_slot_for_it() -> None:
    async with Bench(replicas=0, size=2, adapter=TakesNoDeadBack, refresh_timeout=9) as bench:
        held = await bench.manager.acquire()
        bench["db1"].latency = 1
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire(timeout=0.5)
        assert in_use(bench.manager) == 2
        await asyncio.sleep(20)
        bench["db1"].latency = 0.001
        assert in_use(bench.manager) == 1
        await bench.manager.release(held)
        # The fake's own count: it never had that one back.
        bench.pool("db1").out.clear()
