"""Fast, without hammering: how often hosts are asked and connected to."""

import asyncio

import pytest
from tests.core.conftest import Bench, now, start, suspect, virtual

from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.monitor import CONNECT_GAP
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
            assert 320 <= count.queries <= 401
            # A role is missing: the name may be looked up anew, at the pace of connects.
            assert count.connects <= 101
        waiting.cancel()
        await asyncio.wait([waiting])
        down, *replicas = (Count(bench[name]) for name in ("db1", "db2", "db3"))
        await asyncio.sleep(60)
        for count in (down, *replicas):
            assert count.queries + count.connects <= 4


@pytest.mark.parametrize("waits", [False, True])
@virtual
async def test_hopeless_hosts_are_tried_slowly(waits: bool) -> None:
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
        assert 8 <= count.connects <= 11


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
        assert bench["db1"].connects - connects <= 10 / CONNECT_GAP + 1
