# pyright: reportUnknownMemberType=false
# matplotlib's types are partial.
"""What a release costs while so many wait: handing over, waking, and joining the line anew."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from . import null
from .contenders import BARE, HASQL, OURS, SIZE, managed
from .report import COLOURS, Report
from .rounds import Batch, Timing, interleave

WAITERS = (10, 100, 1000, 10_000)

Found = dict[str, list[Timing]]


def measure(run: Callable[[Coroutine[Any, Any, Found]], Found], rounds: int) -> Report:
    found = run(_measure(rounds))
    return Report(
        "release",
        "µs from one release to the next, by the number of those who wait",
        ("waiters", *found, *(f"{name}, to {WAITERS[0]} waiters" for name in found)),
        [
            (
                f"{count:,}",
                *(f"{timings[n].microseconds:.1f}" for timings in found.values()),
                *(f"{timings[n].ratio:.2f}" for timings in found.values()),
            )
            for n, count in enumerate(WAITERS)
        ],
        draw=lambda figure: _draw(figure, found),
        data={
            name: [(count, t.seconds, t.ratio) for count, t in zip(WAITERS, timings, strict=True)]
            for name, timings in found.items()
        },
    )


async def _measure(rounds: int) -> Found:
    return {
        name: await _measure_one(opened, rounds)
        for name, opened in {BARE: _bare, OURS: _ours, HASQL: _hasql}.items()
    }


async def _measure_one(opened: Any, rounds: int) -> list[Timing]:
    async with AsyncExitStack() as stack:
        batches: dict[str, Batch] = {}
        for count in WAITERS:
            acquire, release = await stack.enter_async_context(opened())
            batches[str(count)] = await stack.enter_async_context(_line(acquire, release, count))
        timings = await interleave(batches, rounds=rounds)
        return list(timings.values())


@asynccontextmanager
async def _line(acquire: Any, release: Any, count: int) -> AsyncGenerator[Batch]:
    """All slots taken, and so many in line: whoever gets a connection joins again at once."""
    held = [await acquire() for _ in range(SIZE)]

    async def wait() -> None:
        while True:
            held.append(await acquire())

    tasks = [asyncio.create_task(wait()) for _ in range(count)]
    await asyncio.sleep(0)
    try:
        yield partial(_release, held, release)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for connection in held:
            await release(connection)


async def _release(held: list[Any], release: Any, count: int) -> None:
    for _ in range(count):
        connection = held.pop()
        await release(connection)
        while len(held) < SIZE:
            await asyncio.sleep(0)


@asynccontextmanager
async def _bare() -> AsyncGenerator[tuple[Any, Any]]:
    pool = null.NullPool("master", SIZE)
    yield pool.take, pool.give_back


@asynccontextmanager
async def _ours() -> AsyncGenerator[tuple[Any, Any]]:
    async with managed(null.PoolManager, null.DSN, {"size": SIZE}, acquire_timeout=1e4) as manager:
        yield manager.acquire_master, manager.release


@asynccontextmanager
async def _hasql() -> AsyncGenerator[tuple[Any, Any]]:
    async with managed(
        null.HasqlPoolManager, null.DSN, {"size": SIZE}, acquire_timeout=1e4
    ) as manager:
        yield manager.acquire_master, manager.release


def _draw(figure: Figure, found: Found) -> None:
    axes = figure.subplots()
    for name, timings in found.items():
        axes.plot(WAITERS, [t.microseconds for t in timings], "o-", color=COLOURS[name], label=name)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("waiters")
    axes.set_ylabel("µs a release")
    axes.legend(frameon=False)
