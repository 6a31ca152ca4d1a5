"""How long hosts take to answer, and what reads make of it where one replica is slow."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from tests.core.conftest import Bench, now, virtual

from pyscopg2.balancer_policy import (
    BalancerPolicy,
    CandidateT,
    GreedyBalancerPolicy,
    PeakEwmaBalancerPolicy,
    PowerOfTwoBalancerPolicy,
    RandomWeightedBalancerPolicy,
    RoundRobinBalancerPolicy,
)
from pyscopg2.core.checkout.host_pool import DECAY, HostPool
from pyscopg2.core.timing import stopwatch


def test_a_peak_counts_at_once_and_decays() -> None:
    host_pool = HostPool("db1:5432", object(), 10)
    host_pool.observe(0.001, 1.0)
    assert host_pool.latency == 0.001
    host_pool.observe(0.101, 2.0)
    assert host_pool.latency == 0.101
    host_pool.observe(0.001, 2.0 + DECAY)
    assert host_pool.latency == pytest.approx(0.001 + 0.1 * 0.3679, rel=0.001)
    host_pool.observe(0.001, 2.0 + 20 * DECAY)
    assert host_pool.latency == pytest.approx(0.001)


def test_the_recent_time_shows_what_lasts_and_no_outlier() -> None:
    host_pool = HostPool("db1:5432", object(), 10)
    assert host_pool.recent_time is None
    seen: list[float | None] = []
    for number, seconds in enumerate([1, 1, 1, 100, 1, 1, 100, 1, 100, 100, 100, 1, 1, 1]):
        host_pool.time_check(seconds, float(number))
        seen.append(host_pool.recent_time)
    assert seen == [1, 1, 1, 1, 1, 1, 1, 1, 1, 100, 100, 100, 100, 1]


@virtual
async def test_durations_are_taken_from_the_clock_for_durations() -> None:
    """The event loop's may know whole milliseconds only, as uvloop's does."""
    stopwatch.clock = lambda: 3 * now()
    policy = Recorder()
    async with Bench(replicas=2, balancer_policy=policy, refresh_delay=60) as bench:
        response_time = bench.manager.get_last_response_time(bench.pool("db2"))
        assert response_time == pytest.approx(0.003)
        async with bench.manager.acquire(True):
            bench["db2"].latency = 0.03
        async with bench.manager.acquire(True):
            assert policy.latencies == pytest.approx({"db2:5432": 0.09, "db3:5432": 0.003})


async def shares(bench: Bench, reads: int = 500) -> Counter[str]:
    hosts: Counter[str] = Counter()
    for _ in range(reads):
        async with bench.manager.acquire(True) as connection:
            hosts[connection.server.name] += 1
    return hosts


@virtual
async def test_random_weighted_notices_within_a_few_checks_that_a_host_has_become_slow() -> None:
    async with Bench(replicas=2, balancer_policy=RandomWeightedBalancerPolicy) as bench:
        for _ in range(200):
            await bench.check()
        bench["db3"].latency = 0.1
        for _ in range(3):
            await bench.check()
        assert (await shares(bench))["db3"] < 20
        bench["db3"].latency = 0.001
        for _ in range(3):
            await bench.check()
        assert (await shares(bench))["db3"] > 200


@virtual
async def test_random_weighted_is_not_drawn_by_what_took_long_by_chance() -> None:
    async with Bench(replicas=2, balancer_policy=RandomWeightedBalancerPolicy) as bench:
        for _ in range(5):
            await bench.check()
        for slow in (True, True, False, False, False, True):
            bench["db3"].latency = 0.1 if slow else 0.001
            await bench.check()
            bench["db3"].latency = 0.001
            assert (await shares(bench))["db3"] > 200


class Recorder:
    """Takes the first candidate, and writes down what each knew of its host's latency."""

    needs_latency = True

    def __init__(self) -> None:
        self.latencies: dict[str, float | None] = {}

    def choose(self, candidates: Sequence[CandidateT], /) -> CandidateT:
        self.latencies = {candidate.address: candidate.latency for candidate in candidates}
        return candidates[0]


@virtual
async def test_checks_tell_the_latency() -> None:
    policy = Recorder()
    async with Bench(replicas=2, balancer_policy=policy, refresh_delay=60) as bench:
        bench["db2"].latency = 0.03
        await bench.check()
        async with bench.manager.acquire(True):
            assert policy.latencies == pytest.approx({"db2:5432": 0.03, "db3:5432": 0.001})


@virtual
async def test_giving_back_tells_the_latency_between_checks() -> None:
    policy = Recorder()
    async with Bench(replicas=2, balancer_policy=policy, refresh_delay=60) as bench:
        async with bench.manager.acquire(True):
            bench["db2"].latency = 0.03
        async with bench.manager.acquire(True):
            assert policy.latencies == pytest.approx({"db2:5432": 0.03, "db3:5432": 0.001})


@virtual
async def test_the_end_of_a_block_tells_the_latency() -> None:
    policy = Recorder()
    async with Bench(replicas=2, balancer_policy=policy, refresh_delay=60) as bench:
        bench.quirks.commits_at_end = True
        async with bench.manager.acquire(True) as connection:
            await connection.execute("begin")
            bench["db2"].latency = 0.03
        async with bench.manager.acquire(True):
            assert policy.latencies["db2:5432"] == pytest.approx(0.03)


@virtual
async def test_neither_users_nor_connects_make_a_host_look_slow() -> None:
    policy = Recorder()
    async with Bench(replicas=2, balancer_policy=policy, refresh_delay=60) as bench:
        for _ in range(3):
            held = [await bench.manager.acquire(True) for _ in range(3)]
            await asyncio.sleep(5)
            for connection in held:
                await bench.manager.release(connection)
        assert policy.latencies == pytest.approx({"db2:5432": 0.001, "db3:5432": 0.001})


POLICIES = [GreedyBalancerPolicy(), PeakEwmaBalancerPolicy(), PowerOfTwoBalancerPolicy()]


@pytest.mark.parametrize("policy", POLICIES)
@virtual
async def test_a_burst_is_spread_by_every_policy_that_looks_at_load(policy: BalancerPolicy) -> None:
    for _ in range(5):
        async with Bench(replicas=2, balancer_policy=policy) as bench:
            tasks = (asyncio.ensure_future(bench.manager.acquire(True)) for _ in range(10))
            held = await asyncio.gather(*tasks)
            assert Counter(c.server.name for c in held) == {"db2": 5, "db3": 5}


class Readers:
    """Three replicas with five slots each. Of these 9 are in use all the time: 60 % load."""

    def __init__(self, policy: type[BalancerPolicy], **settings: Any) -> None:
        self.bench = Bench(replicas=3, size=5, balancer_policy=policy, **settings)
        for name in ("db2", "db3", "db4"):
            self.bench[name].latency = 0.005
        self.took: list[float] = []
        self.hosts: Counter[str] = Counter()

    async def run(self, seconds: float) -> list[int]:
        """Read for so long; returns how often each reader was served."""
        self.took.clear()
        self.hosts.clear()
        return await asyncio.gather(*(self._read(now() + seconds) for _ in range(9)))

    async def _read(self, until: float) -> int:
        reads = 0
        while now() < until:
            began = now()
            async with self.bench.manager.acquire(True) as connection:
                await connection.fetch_scalar("select 1")
            self.took.append(now() - began)
            self.hosts[connection.server.name] += 1
            reads += 1
            # Users do something between two reads, not always the same.
            await asyncio.sleep(random.uniform(0, 0.002))
        return reads

    @property
    def p99(self) -> float:
        return sorted(self.took)[len(self.took) * 99 // 100]


async def read_with_a_slow_replica(policy: type[BalancerPolicy]) -> tuple[float, list[int]]:
    """While one of three replicas takes 50 ms more: the 99th percentile in seconds, and how often
    each reader was served."""
    readers = Readers(policy)
    async with readers.bench as bench:
        bench["db3"].latency += 0.05
        await bench.check()
        reads = await readers.run(2)
        return readers.p99, reads


@virtual
async def test_a_slow_replica_hardly_shows_under_peak_ewma() -> None:
    slow, _ = await read_with_a_slow_replica(RoundRobinBalancerPolicy)
    fast, reads = await read_with_a_slow_replica(PeakEwmaBalancerPolicy)
    assert slow > 0.1
    assert fast < slow / 3
    # No reader was left behind the others.
    assert min(reads) > 0.9 * max(reads)


@virtual
async def test_a_replica_that_recovers_gets_its_share_again_under_peak_ewma() -> None:
    readers = Readers(PeakEwmaBalancerPolicy)
    async with readers.bench as bench:
        bench["db3"].latency += 0.05
        await bench.check()
        await readers.run(0.5)
        assert readers.hosts["db3"] < sum(readers.hosts.values()) / 100
        bench["db3"].latency -= 0.05
        await asyncio.sleep(3)
        await readers.run(0.5)
        assert readers.hosts["db3"] == pytest.approx(sum(readers.hosts.values()) / 3, rel=0.1)


@virtual
async def test_a_replica_that_slows_down_is_noticed_before_its_next_check() -> None:
    readers = Readers(PeakEwmaBalancerPolicy, refresh_delay=60)
    async with readers.bench as bench:
        await readers.run(0.1)
        bench["db3"].latency += 0.05
        await readers.run(0.5)
        assert 1 <= readers.hosts["db3"] <= 5
