import sys
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from pyscopg2.balancer_policy import (
    BalancerPolicy,
    GreedyBalancerPolicy,
    PeakEwmaBalancerPolicy,
    PowerOfTwoBalancerPolicy,
    RandomWeightedBalancerPolicy,
    RoundRobinBalancerPolicy,
)

POLICIES = [
    GreedyBalancerPolicy(),
    PeakEwmaBalancerPolicy(),
    PowerOfTwoBalancerPolicy(),
    RandomWeightedBalancerPolicy(),
    RoundRobinBalancerPolicy(),
]


@dataclass
class Host:
    address: str
    free: int = 1
    in_use: int = 0
    response_time: float | None = None
    recent_time: float | None = None
    latency: float | None = None
    lag: float | None = None


def chosen(policy: BalancerPolicy, hosts: list[Host], times: int = 1000) -> Counter[str]:
    return Counter(policy.choose(hosts).address for _ in range(times))


@pytest.mark.parametrize("policy", POLICIES)
def test_one_candidate_is_chosen(policy: BalancerPolicy) -> None:
    host = Host("a")
    assert policy.choose([host]) is host


def test_greedy_takes_the_host_with_the_most_free_connections() -> None:
    hosts = [Host("a", 2), Host("b", 5), Host("c", 4)]
    assert chosen(GreedyBalancerPolicy(), hosts) == {"b": 1000}


def test_greedy_throws_dice_between_equals() -> None:
    counts = chosen(GreedyBalancerPolicy(), [Host("a", 5), Host("b", 5), Host("c", 4)])
    assert counts["a"] + counts["b"] == 1000
    assert min(counts["a"], counts["b"]) > 400


@pytest.mark.parametrize(
    ("times", "share"),
    [
        ((0.1, 0.3), 0.75),
        ((0.1, 0.1), 0.5),
        ((None, None), 0.5),
        ((0.2, None), 0.5),
        ((None, 0.2), 0.5),
        ((0.0, 1.0), 1.0),
        ((0.0, 0.0), 0.5),
    ],
)
def test_weights_are_inverse_to_recent_times(
    times: tuple[float | None, float | None], share: float
) -> None:
    hosts = [Host(name, recent_time=time) for name, time in zip("ab", times, strict=True)]
    counts = chosen(RandomWeightedBalancerPolicy(), hosts, 4000)
    assert counts["a"] / 4000 == pytest.approx(share, abs=0.04)


def turns(policy: RoundRobinBalancerPolicy, *rounds: str) -> str:
    return "".join(policy.choose([Host(name) for name in hosts]).address for hosts in rounds)


def test_round_robin_takes_turns() -> None:
    assert turns(RoundRobinBalancerPolicy(), *["abc"] * 7) == "abcabca"


def test_round_robin_stays_fair_when_hosts_come_and_go() -> None:
    policy = RoundRobinBalancerPolicy()
    assert turns(policy, *["abc"] * 4, *["ac"] * 4) == "abcacaca"
    assert turns(policy, *["abc"] * 4) == "bcab"
    counts = Counter(turns(policy, *["abcd", "abc", "bcd", "abd"] * 75))
    assert max(counts.values()) - min(counts.values()) <= 2


def test_round_robin_does_not_catch_up() -> None:
    policy = RoundRobinBalancerPolicy()
    turns(policy, "ab", "ab", *["a"] * 50)
    assert turns(policy, *["ab"] * 6) == "bababa"


# Power of two


def test_power_of_two_takes_the_less_loaded_of_two() -> None:
    hosts = [Host("a", in_use=3), Host("b", in_use=2)]
    assert chosen(PowerOfTwoBalancerPolicy(), hosts) == {"b": 1000}


def test_power_of_two_looks_at_two_different_hosts_each_time() -> None:
    hosts = [Host(name, in_use=load) for name, load in zip("abcd", (0, 1, 2, 3), strict=True)]
    counts = chosen(PowerOfTwoBalancerPolicy(), hosts, 6000)
    # Of the six pairs "a" is the less loaded in three, "b" in two, "c" in one.
    assert counts["d"] == 0
    for name, pairs in zip("abc", (3, 2, 1), strict=True):
        assert counts[name] / 6000 == pytest.approx(pairs / 6, abs=0.03)


def test_power_of_two_throws_dice_between_equals() -> None:
    counts = chosen(PowerOfTwoBalancerPolicy(), [Host("a"), Host("b"), Host("c")], 3000)
    assert min(counts[name] for name in "abc") > 900


# Peak EWMA


@pytest.mark.parametrize(
    ("latencies", "loads", "who"),
    [
        ((0.010, 0.050), (0, 0), "a"),
        ((0.050, 0.010), (0, 0), "b"),
        ((0.010, 0.050), (9, 0), "a"),
        ((0.010, 0.019), (1, 0), "b"),  # not twice as slow: the load decides
        ((0.010, 0.019), (0, 1), "a"),
        ((None, 0.050), (9, 0), "a"),
        ((0.050, None), (0, 9), "b"),
    ],
)
def test_peak_ewma_multiplies_latency_by_load(
    latencies: tuple[float | None, float | None], loads: tuple[int, int], who: str
) -> None:
    hosts = [
        Host(name, latency=latency, in_use=load, free=10 - load)
        for name, latency, load in zip("ab", latencies, loads, strict=True)
    ]
    assert chosen(PeakEwmaBalancerPolicy(), hosts, 20) == {who: 20}


def test_peak_ewma_tells_loads_apart_where_pools_have_no_limit() -> None:
    hosts = [Host("a", in_use=1, free=sys.maxsize - 1), Host("b", free=sys.maxsize)]
    assert chosen(PeakEwmaBalancerPolicy(), hosts, 20) == {"b": 20}


@pytest.mark.parametrize("latencies", [(None, None), (0.0001, 0.0029), (0.010, 0.019), (0.0, None)])
def test_peak_ewma_throws_dice_between_equals(
    latencies: tuple[float | None, float | None],
) -> None:
    hosts = [Host(name, latency=time) for name, time in zip("ab", latencies, strict=True)]
    counts = chosen(PeakEwmaBalancerPolicy(), hosts)
    assert min(counts["a"], counts["b"]) > 400


def test_the_floor_of_peak_ewma_is_where_differences_begin() -> None:
    hosts = [Host("a", latency=0.0001), Host("b", latency=0.0003)]
    assert chosen(PeakEwmaBalancerPolicy(floor=0.0001), hosts) == {"a": 1000}
    for floor in (0.0, -1.0, float("nan"), float("inf"), 10**400):
        with pytest.raises(ValueError, match="floor must be above 0 and finite"):
            PeakEwmaBalancerPolicy(floor)
    others: list[Any] = ["1", None, True, Decimal("0.1")]
    for floor in others:
        with pytest.raises(TypeError, match="floor must be a number, not "):
            PeakEwmaBalancerPolicy(floor)
