"""The manager in numbers."""

import asyncio
import contextlib
import threading

import pytest
from tests.core.conftest import Bench, virtual

from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.statistics.distribution import BOUNDS, Durations
from pyscopg2.testing.fake_server import FULL


@virtual
async def test_before_anything_was_used() -> None:
    async with Bench(replicas=1, ready=False) as bench:
        stats = bench.manager.stats()
        assert [host.role.value for host in stats] == ["unknown", "unknown"]
        assert stats.in_use == stats.waiting == stats.acquires == stats.timed_out == 0
        assert (stats["db1:5432"].size, stats["db1:5432"].lag) == (None, None)
        with pytest.raises(KeyError):
            stats["db9:5432"]


@virtual
async def test_each_check_counts_once_and_a_pool_that_opens_is_none() -> None:
    async with Bench(replicas=0) as bench:
        host = bench.manager.topology["db1:5432"]
        # Each check has the next number: of one host, all are its own.
        assert bench.manager.stats()["db1:5432"].checks == host.serial > 0


@virtual
async def test_who_uses_and_who_waits() -> None:
    async with Bench(replicas=1, size=2) as bench:
        manager = bench.manager
        held = [await manager.acquire() for _ in range(2)]
        waiting = [asyncio.ensure_future(manager.acquire(timeout=5).__aenter__()) for _ in range(3)]
        await asyncio.sleep(0)
        stats = manager.stats()
        master, replica = stats
        assert (master.size, master.in_use, master.waiting, master.acquires) == (2, 2, 3, 2)
        assert (replica.size, replica.in_use, replica.waiting, replica.acquires) == (2, 0, 0, 0)
        assert (stats.in_use, stats.waiting) == (2, 3)
        assert master.lag == 0
        for each in waiting:
            each.cancel()
        for connection in held:
            await manager.release(connection)
        assert manager.stats().in_use == 0
        assert manager.stats().acquires == 2


@virtual
async def test_idle_connections_as_the_driver_tells() -> None:
    async with Bench(replicas=0, size=5) as bench:
        async with bench.manager.acquire():
            assert bench.manager.stats()["db1:5432"].idle == 0
        host = bench.manager.stats()["db1:5432"]
        assert (host.idle, host.idle_min, host.idle_max) == (1, 0, 5)


@virtual
async def test_counts_outlive_the_pools() -> None:
    async with Bench(replicas=0) as bench:
        async with bench.manager.acquire():
            pass
        bench["db1"].down()
        await bench.until_roles("unavailable")
        bench["db1"].up()
        await bench.until_roles("master")
        async with bench.manager.acquire():
            pass
        host = bench.manager.stats()["db1:5432"]
        assert (host.acquires, host.retired) == (2, 1)
        assert host.failed_checks >= 1
        assert host.checks > host.failed_checks
        assert bench.manager.stats().failovers == 0


@virtual
async def test_what_is_out_of_a_retired_pool_counts() -> None:
    async with Bench(replicas=0) as bench:
        connection = await bench.manager.acquire()
        bench["db1"].down()
        await bench.until_roles("unavailable")
        host = bench.manager.stats()["db1:5432"]
        assert (host.size, host.in_use) == (None, 1)
        await bench.manager.release(connection)
        assert bench.manager.stats().in_use == 0
        bench["db1"].up()


@virtual
async def test_failovers_and_terminated_connections() -> None:
    async with Bench(replicas=1) as bench:
        connection = await bench.manager.acquire()
        bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master")
        stats = bench.manager.stats()
        assert stats.failovers == 1
        assert stats["db1:5432"].terminated == 1
        await bench.manager.release(connection)


@virtual
async def test_time_outs_by_what_was_in_the_way() -> None:
    async with Bench(replicas=1, size=1) as bench:
        held = await bench.manager.acquire()
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire(timeout=0.1)
        assert bench.manager.stats().timeouts == {"busy": 1}
        bench["db2"].down()
        await bench.until_roles("master unavailable")
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire_replica(timeout=0.1)
        assert bench.manager.stats().timeouts == {"busy": 1, "role": 1}
        assert bench.manager.stats().timed_out == 2
        await bench.manager.release(held)


@virtual
async def test_connects_and_failed_connects() -> None:
    async with Bench(replicas=0, size=5) as bench:
        held = [await bench.manager.acquire() for _ in range(2)]
        connects = bench.manager.stats()["db1:5432"].connects
        assert connects >= 1
        bench["db1"].refuse_connects = FULL
        with pytest.raises(AcquireTimeoutError):
            while True:
                held.append(await bench.manager.acquire(timeout=0.1))
        bench["db1"].refuse_connects = None
        assert bench.manager.stats()["db1:5432"].failed_connects >= 1
        for connection in held:
            await bench.manager.release(connection)


@virtual
async def test_times_where_somebody_asked_for_them() -> None:
    async with Bench(replicas=0, size=1) as bench:
        manager = bench.manager
        before = await manager.acquire()
        assert manager.stats()["db1:5432"].wait_time is None
        manager.record_times()
        manager.record_times()

        async def give_back() -> None:
            await asyncio.sleep(0.3)
            await manager.release(before)

        giving = asyncio.ensure_future(give_back())
        async with manager.acquire(timeout=5):
            await asyncio.sleep(2)
        await giving
        host = manager.stats()["db1:5432"]
        assert host.wait_time is not None
        assert host.use_time is not None
        # Not that of the one that was out before.
        assert (host.wait_time.count, host.use_time.count) == (1, 1)
        assert host.wait_time.sum == pytest.approx(0.3, abs=0.01)
        assert host.use_time.sum == pytest.approx(2, abs=0.01)
        connection = await manager.acquire()
        await asyncio.sleep(1)
        await manager.release(connection)
        host = manager.stats()["db1:5432"]
        assert host.use_time is not None
        assert host.use_time.count == 2
        assert host.use_time.sum == pytest.approx(3, abs=0.01)


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[object, ...]] = []

    def acquired(self, address: str, seconds: float, waited: bool) -> None:
        self.lines.append(("acquired", address, round(seconds, 2), waited))

    def failed(self, seconds: float, error: BaseException) -> None:
        self.lines.append(("failed", round(seconds, 2), type(error).__name__))

    def connected(self, address: str, seconds: float) -> None:
        self.lines.append(("connected", address))

    def released(self, address: str, seconds: float) -> None:
        self.lines.append(("released", address, round(seconds, 2)))


@virtual
async def test_an_observer_is_told_of_each_acquire() -> None:
    log = Log()
    async with Bench(replicas=1, size=1) as bench:
        manager = bench.manager
        async with manager.acquire():
            pass
        end = manager.observe(log)
        async with manager.acquire():
            await asyncio.sleep(0.5)
            with pytest.raises(AcquireTimeoutError):
                await manager.acquire(timeout=0.2)
        async with manager.acquire_replica(max_lag=5):
            pass
        with manager.causal():
            async with manager.acquire_master():
                pass
        end()
        async with manager.acquire():
            pass
    assert log.lines == [
        ("acquired", "db1:5432", 0.0, False),
        ("failed", 0.2, "AcquireTimeoutError"),
        ("released", "db1:5432", 0.7),
        ("acquired", "db2:5432", 0.0, False),
        ("released", "db2:5432", 0.0),
        ("acquired", "db1:5432", 0.0, False),
        ("released", "db1:5432", 0.0),
    ]


@virtual
async def test_use_is_told_once_however_often_a_release_is_tried() -> None:
    log = Log()
    async with Bench(replicas=0, size=1) as bench:
        bench.manager.observe(log)
        connection = await bench.manager.acquire()
        with pytest.raises(TypeError):
            await bench.manager.release(connection, no_such_argument=1)
        # It is released without, beside.
        async with bench.manager.acquire(timeout=5):
            pass
    assert [line[0] for line in log.lines] == ["acquired", "released"] * 2


@virtual
async def test_an_observed_acquire_that_is_cancelled_leaves_nothing_out() -> None:
    log = Log()
    async with Bench(replicas=0, size=1) as bench:
        manager = bench.manager
        manager.observe(log)
        async with manager.acquire():
            waiting = asyncio.ensure_future(manager.acquire(timeout=5).__aenter__())
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert manager.stats().in_use == 0
    assert ("failed", 0.1, "CancelledError") in log.lines


@virtual
async def test_an_acquire_that_is_observed_is_for_one_use_still() -> None:
    async with Bench(replicas=0) as bench:
        bench.manager.observe(Log())
        acquire = bench.manager.acquire()
        async with acquire:
            with pytest.raises(RuntimeError, match="before"):
                await acquire


@virtual
async def test_an_observer_that_raises_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Log):
        def acquired(self, address: str, seconds: float, waited: bool) -> None:
            raise ZeroDivisionError

        def failed(self, seconds: float, error: BaseException) -> None:
            raise ZeroDivisionError

        def connected(self, address: str, seconds: float) -> None:
            raise ZeroDivisionError

        def released(self, address: str, seconds: float) -> None:
            raise ZeroDivisionError

    log = Log()
    async with Bench(replicas=0, size=1) as bench:
        bench.manager.observe(Broken())
        bench.manager.observe(log)
        async with bench.manager.acquire():
            with pytest.raises(AcquireTimeoutError):
                await bench.manager.acquire(timeout=0.1)
        assert bench.manager.stats().in_use == 0
    assert len(log.lines) == 3
    assert len([r for r in caplog.records if "observer" in r.getMessage()]) == 1


def test_a_distribution_is_cumulative() -> None:
    durations = Durations()
    for seconds in (0.00005, 0.0001, 0.3, 11.0):
        durations.add(seconds)
    told = durations.distribution()
    buckets = dict(told.buckets)
    assert tuple(buckets) == BOUNDS
    assert (buckets[0.0001], buckets[0.25], buckets[0.5], buckets[10.0]) == (2, 2, 3, 3)
    assert told.count == 4
    assert told.sum == pytest.approx(11.30015)


async def test_threads_may_ask() -> None:
    """While all that is counted changes, as fast as it can."""
    asked = 0
    over = threading.Event()
    errors: list[BaseException] = []

    async with Bench(replicas=1, size=2) as bench:
        manager = bench.manager
        manager.record_times()

        def ask() -> None:
            nonlocal asked
            try:
                while not over.is_set():
                    stats = manager.stats()
                    assert 0 <= stats.in_use <= 8
                    asked += 1
            except BaseException as exc:
                errors.append(exc)

        async def use(read_only: bool, weight: float | None) -> None:
            for _ in range(50):
                with contextlib.suppress(AcquireTimeoutError):
                    async with manager.acquire(
                        read_only, master_as_replica_weight=weight, timeout=0.01
                    ):
                        await asyncio.sleep(0)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            users = [use(False, None) for _ in range(5)] + [use(True, 0.5) for _ in range(5)]
            await asyncio.gather(*users)
            while asked < 100 and not errors:
                await asyncio.sleep(0.001)
        finally:
            over.set()
            thread.join()
    assert not errors
