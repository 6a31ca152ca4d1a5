"""Fast, without hammering: how often hosts are asked and connected to."""

import asyncio

import pytest
from tests.core.conftest import Bench, now, start, suspect, virtual

from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.monitoring.attention import CONNECT_GAP, WATCHFUL_GAP, WATCHFUL_TIME
from pyscopg2.testing.fake_server import FULL, WRONG_PASSWORD, FakeServer


class Count:
    """What a host was sent since."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._connects, self._queries = server.connects, server.queries

    @property
    def connects(self) -> int:
        return self._server.connects - self._connects

    @property
    def queries(self) -> int:
        return self._server.queries - self._queries


@virtual
async def test_one_check_per_refresh_delay_and_no_connect() -> None:
    async with Bench(replicas=2, refresh_delay=2) as bench:
        counts = [Count(server) for server in bench.network.servers.values()]
        await asyncio.sleep(200)
        for count in counts:
            assert 82 <= count.queries <= 100  # with jitter, never more often
            assert count.connects == 0


@virtual
async def test_checks_of_many_hosts_do_not_beat_as_one() -> None:
    async with Bench(replicas=2, refresh_delay=2) as bench:
        await asyncio.sleep(60)
        times = [bench[name].log[-1].time for name in ("db1", "db2", "db3")]
        assert len({round(time, 2) for time in times}) == 3


@virtual
async def test_a_host_that_is_down_is_tried_once_per_refresh_delay() -> None:
    async with Bench(refresh_delay=2) as bench:
        bench["db2"].down()
        count = Count(bench["db2"])
        await asyncio.sleep(200)
        assert 80 <= count.connects <= 105


@pytest.mark.parametrize("waiter", ["acquire", "wait_masters_ready"])
@virtual
async def test_while_somebody_waits_for_a_missing_role(waiter: str) -> None:
    async with Bench(replicas=2, refresh_delay=30) as bench:
        bench["db1"].down()
        await bench.check()
        await asyncio.sleep(1)
        waiting = (
            start(bench.manager.acquire(timeout=60))
            if waiter == "acquire"
            else start(bench.manager.wait_masters_ready(1))
        )
        down, *replicas = (Count(bench[name]) for name in ("db1", "db2", "db3"))
        await asyncio.sleep(20)
        assert 80 <= down.connects <= 101
        for count in replicas:
            # A role is missing: the name may be looked up anew, at the pace of connects.
            assert count.connects <= 101
            assert 320 <= count.queries - count.connects <= 401
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.sleep(WATCHFUL_TIME)
        down, *replicas = (Count(bench[name]) for name in ("db1", "db2", "db3"))
        await asyncio.sleep(60)
        for count in (down, *replicas):
            assert count.queries + count.connects <= 4


@pytest.mark.parametrize("waits", [False, True])
@virtual
async def test_hopeless_hosts_are_tried_slowly_unless_somebody_waits(waits: bool) -> None:
    bench = Bench(replicas=0, ready=False)
    bench["db1"].refuse_connects = WRONG_PASSWORD
    async with bench, bench.manager:
        await asyncio.sleep(60)
        count = Count(bench["db1"])
        if waits:
            with pytest.raises(AcquireTimeoutError):
                await bench.manager.acquire(timeout=100)
        else:
            await asyncio.sleep(100)
        if waits:  # once a second
            assert 80 <= count.connects <= 101
        else:
            assert 8 <= count.connects <= 11


@pytest.mark.parametrize("trouble", ["down", "freeze"])
@virtual
async def test_a_master_that_is_lost_or_overdue_has_all_hosts_looked_at_for_a_minute(
    trouble: str,
) -> None:
    async with Bench(replicas=2, refresh_delay=30, refresh_timeout=10) as bench:
        getattr(bench["db1"], trouble)()
        suspect(bench.manager, "db1:5432")
        await asyncio.sleep(0.2)
        count = Count(bench["db2"])
        await asyncio.sleep(5)
        # Nobody waits.
        assert 5 / WATCHFUL_GAP / 1.2 - 1 <= count.queries <= 5 / WATCHFUL_GAP + 1
        await asyncio.sleep(WATCHFUL_TIME + 10)
        count = Count(bench["db2"])
        await asyncio.sleep(60)
        assert count.queries <= 3


@virtual
async def test_a_full_pool_has_its_host_asked_twice_a_second() -> None:
    async with Bench(size=1, refresh_delay=60) as bench:
        held = await bench.manager.acquire()
        waiting = start(bench.manager.acquire(timeout=30))
        await asyncio.sleep(1)
        count = Count(bench["db1"])
        other = Count(bench["db2"])
        await asyncio.sleep(20)
        assert 30 <= count.queries <= 41
        assert other.queries <= 1
        await bench.manager.release(held)
        await bench.manager.release(await waiting)


@virtual
async def test_who_waits_for_all_hosts_has_those_asked_that_do_not_answer() -> None:
    async with Bench(replicas=2, refresh_delay=60) as bench:
        bench["db3"].down()
        await bench.until_roles("master replica unavailable")
        waiting = start(bench.manager.wait_all_ready())
        healthy = [Count(bench["db1"]), Count(bench["db2"])]
        down = Count(bench["db3"])
        await asyncio.sleep(20)
        assert 30 <= down.connects <= 41
        assert [count.queries for count in healthy] in ([0, 0], [0, 1], [1, 0], [1, 1])
        bench["db3"].up()
        async with asyncio.timeout(0.7):
            await waiting


@virtual
async def test_a_login_that_comes_late_is_found_soon_while_somebody_waits() -> None:
    bench = Bench(replicas=0, ready=False)
    bench["db1"].refuse_connects = WRONG_PASSWORD
    async with bench, bench.manager:
        await asyncio.sleep(60)
        waiting = start(bench.manager.acquire(timeout=30))
        await asyncio.sleep(5)
        bench["db1"].refuse_connects = None
        async with asyncio.timeout(1.3):
            await bench.manager.release(await waiting)


@virtual
async def test_who_waits_for_a_full_server_does_not_storm_it() -> None:
    async with Bench(replicas=0) as bench:
        await bench.manager.acquire()
        bench["db1"].refuse_connects = FULL
        waiting = [start(bench.manager.acquire(timeout=4)) for _ in range(9)]
        await asyncio.sleep(1)
        count = Count(bench["db1"])
        await asyncio.sleep(2)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert count.queries <= 41
        assert count.connects <= 20


@virtual
async def test_acquiring_costs_no_query() -> None:
    async with Bench(refresh_delay=60) as bench:
        counts = [Count(server) for server in bench.network.servers.values()]
        for _ in range(100):
            async with bench.manager.acquire(), bench.manager.acquire_replica():
                pass
        assert [(count.queries, count.connects) for count in counts] == [(0, 0), (0, 0)]


@virtual
async def test_a_suspicion_that_comes_a_thousand_times_is_one_check() -> None:
    async with Bench(refresh_delay=60) as bench:
        count = Count(bench["db1"])
        for _ in range(1000):
            suspect(bench.manager, "db1:5432")
            await asyncio.sleep(0.0001)
        assert count.queries <= 3


@pytest.mark.parametrize("every", [0.01, 0.06, 0.15])
@virtual
async def test_a_reserved_connection_that_breaks_all_the_time_is_no_storm(every: float) -> None:
    async with Bench(replicas=0) as bench:
        connects = bench["db1"].connects
        until = now() + 10
        while now() < until:
            await asyncio.sleep(every)
            bench["db1"].break_connections(ConnectionResetError())
        # Each time the reserved connection, and now and then a pool.
        assert bench["db1"].connects - connects <= 1.2 * 10 / CONNECT_GAP
