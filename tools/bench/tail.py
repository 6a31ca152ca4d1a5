# pyright: reportUnknownMemberType=false
# matplotlib's types are partial.
"""Reads while one of three replicas answers 50 ms late, per balancer policy."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

import hasql.balancer_policy as hasql_policies
from hasql.driver.asyncpg import PoolManager as HasqlAsyncpg
from matplotlib.figure import Figure

from pyscopg2 import balancer_policy
from pyscopg2.asyncpg import PoolManager as OurAsyncpg
from pyscopg2.testing.cluster import LocalCluster

from .contenders import HASQL, OURS, SIZE, managed
from .proxy import slow_proxy
from .report import COLOURS, Report

REPLICAS = 3
READERS = REPLICAS * SIZE * 6 // 10
"""They keep 60 % of all places in use."""

DELAY = 0.05
"""Seconds by which each of the slow replica's answers is late."""

QUERY = "select pg_sleep(0.01), inet_server_port()"
"""Keeps a place busy for 10 ms without keeping the machine busy."""


@dataclass(slots=True)
class Load:
    """Readers that read one after the other, and what they saw."""

    acquire: Callable[..., Any]
    slow_port: int
    took: list[float] = field(default_factory=list[float])
    per_reader: list[int] = field(default_factory=list[int])
    errors: int = 0
    slow: int = 0

    async def run(self, seconds: float) -> None:
        self.took.clear()
        self.slow = self.errors = 0
        until = time.perf_counter() + seconds
        self.per_reader = await asyncio.gather(*(self._read(until) for _ in range(READERS)))

    async def _read(self, until: float) -> int:
        reads = 0
        while (began := time.perf_counter()) < until:
            try:
                async with self.acquire() as connection:
                    port = (await connection.fetchrow(QUERY))[1]
            except Exception:
                self.errors += 1
                continue
            self.took.append(time.perf_counter() - began)
            self.slow += port == self.slow_port
            reads += 1
        return reads


@dataclass(frozen=True, slots=True)
class Seen:
    """By the readers under one policy."""

    who: str
    policy: str
    percentiles: Sequence[float]
    """From the 1st to the 99th, in milliseconds."""
    longest: float
    per_second: float
    slow: float
    """The share of the slow replica."""
    least: float
    """What the reader who was served least had, of the mean."""
    errors: int


def measure(run: Callable[[Coroutine[Any, Any, list[Seen]]], list[Seen]], seconds: float) -> Report:
    """``seconds`` for each policy, after some to warm up."""
    with LocalCluster(REPLICAS, settings={"max_connections": "100"}) as cluster:
        *fast, slow = cluster.replicas
        with slow_proxy(slow.port, DELAY) as port:
            ports = [cluster.primary.port, *(node.port for node in fast), port]
            hosts = ",".join(f"127.0.0.1:{number}" for number in ports)
            dsn = f"postgresql://{cluster.user}:{cluster.password}@{hosts}/{cluster.database}"
            found = run(_measure(dsn, slow.port, seconds))
    return Report(
        "tail",
        f"reads while one of three replicas is {DELAY * 1000:g} ms slow, 60 % load",
        (
            "manager",
            "policy",
            "reads/s",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "max ms",
            "to the slow",
            "worst off",
        ),
        [
            (
                seen.who,
                seen.policy,
                f"{seen.per_second:.0f}",
                *(f"{seen.percentiles[n - 1]:.1f}" for n in (50, 95, 99)),
                f"{seen.longest:.0f}",
                f"{seen.slow:.1%}",
                f"{seen.least:.0%}",
            )
            for seen in found
        ],
        labels=2,
        draw=lambda figure: _draw(figure, found),
        data=[{name: getattr(seen, name) for name in Seen.__slots__} for seen in found],
    )


async def _measure(dsn: str, slow_port: int, seconds: float) -> list[Seen]:
    found: list[Seen] = []
    for who, factory, policies in (
        (OURS, OurAsyncpg, balancer_policy),
        (HASQL, HasqlAsyncpg, hasql_policies),
    ):
        for name in policies.__all__:
            if name in ("BalancerPolicy", "AbstractBalancerPolicy", "BaseBalancerPolicy"):
                continue
            options = {"min_size": SIZE, "max_size": SIZE}
            policy = getattr(policies, name)
            async with managed(factory, dsn, options, balancer_policy=policy) as manager:
                load = Load(manager.acquire_replica, slow_port)
                await load.run(min(2.0, seconds))
                await load.run(seconds)
            percentiles = [second * 1000 for second in quantiles(load.took, n=100)]
            found.append(
                Seen(
                    who,
                    name.removesuffix("BalancerPolicy"),
                    percentiles,
                    max(load.took) * 1000,
                    len(load.took) / seconds,
                    load.slow / len(load.took),
                    min(load.per_reader) * READERS / sum(load.per_reader),
                    load.errors,
                )
            )
    return found


def _draw(figure: Figure, found: Sequence[Seen]) -> None:
    axes = figure.subplots()
    names = [f"{seen.who}\n{seen.policy}" for seen in found]
    places = range(len(found))
    axes.bar(places, [s.percentiles[98] for s in found], color=[COLOURS[s.who] for s in found])
    axes.plot(places, [s.percentiles[49] for s in found], "_", color="black", markersize=18)
    axes.set_xticks(places, names, fontsize=7)
    axes.set_ylabel("ms: p99, and p50 as a line")
