from collections import Counter
from dataclasses import dataclass

import pytest

from pyscopg2.balancer_policy import (
    BalancerPolicy,
    GreedyBalancerPolicy,
    RandomWeightedBalancerPolicy,
    RoundRobinBalancerPolicy,
)


@dataclass
class Host:
    address: str
    free: int = 1
    in_use: int = 0
    response_time: float | None = None


def chosen(policy: BalancerPolicy, hosts: list[Host], times: int = 1000) -> Counter[str]:
    return Counter(policy.choose(hosts).address for _ in range(times))


@pytest.mark.parametrize(
    "policy",
    [GreedyBalancerPolicy(), RandomWeightedBalancerPolicy(), RoundRobinBalancerPolicy()],
)
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
def test_weights_are_inverse_to_response_times(
    times: tuple[float | None, float | None], share: float
) -> None:
    hosts = [Host(name, response_time=time) for name, time in zip("ab", times, strict=True)]
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
