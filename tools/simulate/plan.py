"""What a seed decides before anything runs."""

from dataclasses import dataclass
from random import Random

from pyscopg2.balancer_policy import (
    BalancerPolicy,
    GreedyBalancerPolicy,
    RandomWeightedBalancerPolicy,
    RoundRobinBalancerPolicy,
)

POLICIES: tuple[type[BalancerPolicy], ...] = (
    GreedyBalancerPolicy,
    RandomWeightedBalancerPolicy,
    RoundRobinBalancerPolicy,
)

ENDINGS = (
    "close",
    "close while some are out",
    "close twice",
    "close, then terminate",
    "close, cancelled",
    "terminate",
    "leave the block",
    "leave the block with an error",
    "nobody closes",
)


def dice(seed: int, purpose: str) -> Random:
    """A stream of its own for each purpose, the same in every process."""
    return Random(f"{seed} {purpose}")


@dataclass(frozen=True)
class Plan:
    """The cluster, the driver's manners, the manager's settings and the way it all ends.

    All times are in seconds.
    """

    seed: int
    hosts: int
    size: int
    min_size: int
    latency: float
    rich: bool
    """Whether the hosts tell their timeline."""

    cancel_delay: float
    commits_at_end: bool
    notices_breaks: bool
    terminate_pool_suspends: bool

    refresh_delay: float
    refresh_timeout: float
    acquire_timeout: float
    abandon_timeout: float
    fallback_master: bool
    weight: float
    policy: type[BalancerPolicy]
    fencing: bool

    wal: bool
    """Whether some users read with bounds."""
    tells_receiver: bool
    """Whether standbys tell which timeline they receive."""

    users: int
    trouble: float
    """For so long hosts fail."""
    fault_gap: float
    """Between two faults, on average."""
    ending: str
    amid: bool
    """Whether the end comes amid the trouble."""
    returns_early: bool
    """Whether the driver has a connection back before it says so."""
    reserves: bool
    """Whether the driver connects apart from its pools."""

    @classmethod
    def of(cls, seed: int) -> "Plan":
        roll, fresh = dice(seed, "plan"), dice(seed, "fresh")
        size = roll.choice((1, 2, 2, 3, 4))
        return cls(
            seed=seed,
            hosts=roll.choice((1, 2, 3, 3, 3, 4)),
            size=size,
            min_size=roll.choice((0, 0, size // 2, size)),
            latency=roll.choice((0.001, 0.002, 0.01)),
            rich=roll.random() < 0.95,
            cancel_delay=roll.choice((0.0, 0.0, 3.0)),
            commits_at_end=roll.random() < 0.5,
            notices_breaks=roll.random() < 0.5,
            terminate_pool_suspends=roll.random() < 0.5,
            refresh_delay=roll.choice((0.2, 0.2, 0.2, 0.5, 1.0)),
            refresh_timeout=roll.choice((0.2, 0.2, 0.2, 0.5, 1.0)),
            acquire_timeout=roll.choice((0.3, 1.0, 2.0)),
            abandon_timeout=roll.choice((0.5, 1.0, 2.0)),
            fallback_master=roll.random() < 0.5,
            weight=roll.choice((0.0, 0.0, 0.5, 1.0)),
            policy=roll.choice(POLICIES),
            fencing=roll.random() < 0.95,
            users=roll.randint(2, 5),
            wal=fresh.random() < 0.5,
            tells_receiver=fresh.random() < 0.7,
            trouble=roll.uniform(0.3, 1.5),
            fault_gap=roll.choice((0.1, 0.2, 0.5)),
            ending=roll.choice(ENDINGS),
            amid=roll.random() < 0.4,
            returns_early=roll.random() < 0.5,
            reserves=roll.random() < 0.75,
        )

    @property
    def recovery(self) -> float:
        """So long after its last trouble a host is known again, and who waits is served."""
        # A check that is due, one that fails on what was left behind, and one that succeeds.
        return 3 * 1.2 * self.refresh_delay + 2 * self.refresh_timeout + 0.5
