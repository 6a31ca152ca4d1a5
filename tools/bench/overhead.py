# pyright: reportUnknownMemberType=false
# matplotlib's types are partial.
"""What an acquire costs, beside the same from the bare driver's own pool and from hasql."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from pyscopg2 import balancer_policy
from pyscopg2.testing.cluster import LocalCluster

from . import null
from .contenders import BARE, DRIVERS, HASQL, OURS, SIZE, Contender, managed
from .placement import apart, on_one_core
from .report import COLOURS, Report
from .rounds import Batch, Timing, compared, interleave, sample

PATH = "path"
"""The case of the null driver that tells the ways through the core apart."""

TASKS = 100
"""They share a pool of ten."""


class Measured(NamedTuple):
    """One line of the result."""

    driver: str
    loop: str
    case: str
    contender: str
    timing: Timing


# The cases


def _acquire(contender: Contender) -> Batch:
    acquire = contender.acquire

    async def batch(count: int) -> None:
        for _ in range(count):
            async with acquire():
                pass

    return batch


def _select(contender: Contender) -> Batch:
    acquire, select = contender.acquire, contender.select

    async def batch(count: int) -> None:
        for _ in range(count):
            async with acquire() as connection:
                await select(connection)

    return batch


def crowd(contender: Contender) -> Batch:
    """`TASKS` tasks at once."""
    one = _select(contender)

    async def batch(count: int) -> None:
        # Not less than one each; `share` is what the time is divided by.
        await asyncio.gather(*(one(count) for _ in range(TASKS)))

    return batch


class Case(NamedTuple):
    """What is done."""

    batch: Callable[[Contender], Batch]
    share: int = 1
    """How many acquires one operation of the batch has."""
    place: Callable[[], AbstractContextManager[None]] = nullcontext
    """Where the processes run."""


CASES = {
    "acquire": Case(_acquire, place=apart),
    "select 1": Case(_select, place=apart),
    "100 tasks on 10": Case(crowd, share=TASKS, place=apart),
    "acquire, one core": Case(_acquire, place=on_one_core),
    "select 1, one core": Case(_select, place=on_one_core),
}

SESSIONS = 8
"""So often the connections are opened anew: where the operating system places a server's process
decides how long it takes to answer, and stays decided."""


Run = Callable[[str, Coroutine[Any, Any, list[Measured]]], list[Measured]]
"""On the loop of that name."""


def measure(run: Run, drivers: Sequence[str], loops: Sequence[str], rounds: int) -> list[Measured]:
    """All cases for each driver, on each loop."""
    found: list[Measured] = []
    with ExitStack() as stack:
        cluster = None
        if set(drivers) != {"null"}:
            cluster = stack.enter_context(LocalCluster(2, settings={"max_connections": "100"}))
        for loop in loops:
            for driver in drivers:
                where = None if driver == "null" else cluster
                found += run(loop, _measure(driver, loop, where, rounds))
    return found


async def _measure(
    driver: str, loop: str, cluster: LocalCluster | None, rounds: int
) -> list[Measured]:
    """Only the null driver does without a cluster."""
    if cluster is None:
        host_dsn = dsn = null.DSN
    else:
        host_dsn, dsn = cluster.primary.dsn, cluster.dsn
    times: dict[str, dict[str, list[float]]] = {case: {} for case in CASES}
    paths: list[Measured] = []
    for number in range(SESSIONS):
        async with DRIVERS[driver].open(host_dsn, dsn) as contenders:
            for name, case in CASES.items():
                batches = {contender.name: case.batch(contender) for contender in contenders}
                # All connections are open by then.
                for contender in contenders:
                    await crowd(contender)(1)
                with case.place():
                    sampled = await sample(batches, rounds=max(1, rounds // SESSIONS))
                for who, seconds in sampled.items():
                    times[name].setdefault(who, []).extend(seconds)
            if cluster is None and number == SESSIONS - 1:
                paths = await _paths(loop, contenders[0], rounds=rounds)
    found = [
        Measured(driver, loop, case, who, timing.per(CASES[case].share))
        for case, sampled in times.items()
        for who, timing in compared(sampled).items()
    ]
    return found + paths


async def _paths(loop: str, bare: Contender, *, rounds: int) -> list[Measured]:
    """The ways through the core: which of them costs how much."""
    async with null_managers() as managers:
        greedy = managers["GreedyBalancerPolicy"]
        batches: dict[str, Batch] = {
            "bare": _acquire(bare),
            "master, async with": _acquire(Contender("", greedy.acquire_master, null.select)),
            "master, await": partial(_await_and_release, greedy.acquire_master, greedy.release),
        }
        for name, manager in managers.items():
            batches[f"replica of 2, {name}"] = _acquire(
                Contender("", manager.acquire_replica, null.select)
            )
        bounded = partial(greedy.acquire_replica, max_lag=5.0)
        batches["replica of 2, max_lag"] = _acquire(Contender("", bounded, null.select))
        timings = await interleave(batches, rounds=rounds)
    return [Measured("null", loop, PATH, name, timing) for name, timing in timings.items()]


@asynccontextmanager
async def null_managers() -> AsyncGenerator[dict[str, Any]]:
    """Over the null driver, one manager for each policy there is."""
    names = [name for name in balancer_policy.__all__ if name.endswith("BalancerPolicy")]
    policies = [getattr(balancer_policy, name) for name in names]
    async with AsyncExitStack() as stack:
        yield {
            policy.__name__: await stack.enter_async_context(
                managed(null.PoolManager, null.DSN, {"size": SIZE}, balancer_policy=policy)
            )
            for policy in policies
            if policy is not balancer_policy.BalancerPolicy
        }


async def _await_and_release(
    acquire: Callable[[], Awaitable[Any]], release: Callable[[Any], Awaitable[None]], count: int
) -> None:
    for _ in range(count):
        await release(await acquire())


# What it looks like


def reports(found: Sequence[Measured]) -> list[Report]:
    """The drivers in one, the null driver's paths in another."""
    drivers = [row for row in found if row.case != PATH]
    paths = [row for row in found if row.case == PATH]
    made = [
        Report(
            "overhead",
            "an acquire and its release, beside the same from the bare driver's pool",
            ("loop", "driver", "case", "bare µs", "pyscopg2 µs", "pyscopg2", "hasql µs", "hasql"),
            [_line(group) for group in _grouped(drivers)],
            labels=3,
            draw=lambda figure: _draw(figure, drivers),
            data=[row._asdict() | {"timing": asdict(row.timing)} for row in drivers],
        )
    ]
    if paths:
        made.append(
            Report(
                "paths",
                "the core's own microseconds: an acquire and its release on the null driver",
                ("loop", "path", "µs", "added µs"),
                [
                    (row.loop, row.contender, f"{row.timing.microseconds:.2f}", added)
                    for row, added in zip(paths, _added(paths), strict=True)
                ],
                labels=2,
                data=[row._asdict() | {"timing": asdict(row.timing)} for row in paths],
            )
        )
    return made


def _grouped(found: Sequence[Measured]) -> list[list[Measured]]:
    """One group for each loop, driver and case."""
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for row in found:
        groups.setdefault((row.loop, row.driver, row.case), []).append(row)
    return list(groups.values())


def _line(group: Sequence[Measured]) -> tuple[str, ...]:
    bare, ours, hasql = (row.timing for row in group)
    return (
        group[0].loop,
        group[0].driver,
        group[0].case,
        f"{bare.microseconds:.1f}",
        f"{ours.microseconds:.1f}",
        f"**{ours.ratio:.2f}**",
        f"{hasql.microseconds:.1f}",
        f"{hasql.ratio:.2f}",
    )


def _added(paths: Sequence[Measured]) -> list[str]:
    base = {row.loop: row.timing.microseconds for row in paths if row.contender == BARE}
    return [f"{base[row.loop] * (row.timing.ratio - 1):.2f}" for row in paths]


def _draw(figure: Figure, found: Sequence[Measured]) -> None:
    """Ratios, a panel for each of the steadier cases; on the loop that was first."""
    groups = [g for g in _grouped(found) if g[0].loop == found[0].loop and g[0].driver != "null"]
    cases = [name for name, case in CASES.items() if case.place is on_one_core]
    cases.append("100 tasks on 10")
    panels = figure.subplots(1, len(cases), squeeze=False)[0]
    for panel, case in zip(panels, cases, strict=True):
        rows = [group for group in groups if group[0].case == case]
        for shift, name in ((-0.2, OURS), (0.2, HASQL)):
            timings = [row.timing for group in rows for row in group if row.contender == name]
            panel.bar(
                [place + shift for place in range(len(timings))],
                [timing.ratio for timing in timings],
                width=0.38,
                color=COLOURS[name],
                label=name,
            )
        panel.axhline(1, color=COLOURS[BARE], linewidth=1)
        panel.set_xticks(
            range(len(rows)), [group[0].driver for group in rows], rotation=25, ha="right"
        )
        panel.set_title(case, fontsize=9)
        if max((row.timing.ratio for group in rows for row in group), default=1) > 4:
            panel.set_yscale("log")
    panels[0].set_ylabel(f"times the bare pool, {found[0].loop}")
    named = panels[0].get_legend_handles_labels()
    figure.legend(*named, loc="outside lower center", ncols=2, frameon=False)
