"""How a host is chosen among those that may serve a request."""

from pyscopg2.balancer_policy.base import BalancerPolicy, Candidate, CandidateT
from pyscopg2.balancer_policy.greedy import GreedyBalancerPolicy
from pyscopg2.balancer_policy.peak_ewma import PeakEwmaBalancerPolicy
from pyscopg2.balancer_policy.power_of_two import PowerOfTwoBalancerPolicy
from pyscopg2.balancer_policy.random_weighted import RandomWeightedBalancerPolicy
from pyscopg2.balancer_policy.round_robin import RoundRobinBalancerPolicy

__all__ = (
    "BalancerPolicy",
    "Candidate",
    "CandidateT",
    "GreedyBalancerPolicy",
    "PeakEwmaBalancerPolicy",
    "PowerOfTwoBalancerPolicy",
    "RandomWeightedBalancerPolicy",
    "RoundRobinBalancerPolicy",
)
