# pyright: reportUnknownMemberType=false
# matplotlib's types are partial.
"""What a line before a driver's pool costs at the least, and what pyscopg2's does."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any

import asyncpg
from matplotlib.figure import Figure

from pyscopg2.testing.cluster import LocalCluster

from .contenders import BARE, DRIVERS, OURS, SIZE, Acquire, Contender, managed
from .overhead import SESSIONS, TASKS, crowd
from .placement import apart
from .report import COLOURS, Report
from .rounds import Timing, compared, sample

SEMAPHORE = "bare, behind a semaphore"
EARLY = "the same, released when the pool has it back"
TIMERLESS = "bare, without its timer for idle connections"
TIMED = "pyscopg2, with that timer"

_LIFETIME = "max_inactive_connection_lifetime"
"""0: no timer. pyscopg2 says so by itself where it would close no sound connection."""

Found = dict[str, Timing]


class _Behind:
    """One acquire of the bare pool, which waits for a semaphore first."""

    __slots__ = ("_context", "_early", "_semaphore")

    def __init__(
        self,
        semaphore: asyncio.Semaphore,
        context: AbstractAsyncContextManager[Any],
        early: bool,
    ) -> None:
        """``early``: somebody else releases the semaphore."""
        self._semaphore = semaphore
        self._context = context
        self._early = early

    async def __aenter__(self) -> Any:
        await self._semaphore.acquire()
        try:
            return await self._context.__aenter__()
        except BaseException:
            self._semaphore.release()
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._context.__aexit__(exc_type, exc, traceback)
        finally:
            if not self._early:
                self._semaphore.release()


def _behind_semaphore(acquire: Acquire) -> Acquire:
    semaphore = asyncio.Semaphore(SIZE)
    return lambda: _Behind(semaphore, acquire(), False)


@asynccontextmanager
async def _released_early(dsn: str) -> AsyncGenerator[Acquire]:
    """Where nothing goes wrong: a connection that is not reset would keep its slot for ever."""
    semaphore = asyncio.Semaphore(SIZE)

    async def reset(connection: Any) -> None:
        await connection.execute(connection.get_reset_query())
        semaphore.release()

    options = DRIVERS["asyncpg"].options
    async with asyncpg.create_pool(dsn, **options, reset=reset) as pool:
        yield lambda: _Behind(semaphore, pool.acquire(), True)


def measure(run: Callable[[Coroutine[Any, Any, Found]], Found], rounds: int) -> Report:
    with LocalCluster(2, settings={"max_connections": "100"}) as cluster:
        found = run(_measure(cluster, rounds))
    base = found[BARE].microseconds
    return Report(
        "line",
        f"{TASKS} tasks on {SIZE} connections of asyncpg's, `select 1`",
        ("line", "µs", "of the bare pool", "quartiles", "added µs"),
        [
            (
                name,
                f"{timing.microseconds:.1f}",
                f"{timing.ratio:.2f}",
                f"{timing.low:.2f} to {timing.high:.2f}",
                f"{base * (timing.ratio - 1):.1f}",
            )
            for name, timing in found.items()
        ],
        draw=lambda figure: _draw(figure, found),
        data={name: (timing.seconds, timing.ratio) for name, timing in found.items()},
    )


async def _measure(cluster: LocalCluster, rounds: int) -> Found:
    times: dict[str, list[float]] = {}
    for _ in range(SESSIONS):
        driver = DRIVERS["asyncpg"]
        timerless, timed = ({**driver.options, _LIFETIME: time} for time in (0, 300))
        async with (
            driver.open(cluster.primary.dsn, cluster.dsn) as contenders,
            driver.bare(cluster.primary.dsn, timerless) as without,
            managed(driver.ours, cluster.dsn, timed) as manager,
            _released_early(cluster.primary.dsn) as early,
        ):
            bare, ours = (next(c for c in contenders if c.name == n) for n in (BARE, OURS))
            lines = (
                bare,
                Contender(TIMERLESS, without, driver.select),
                Contender(SEMAPHORE, _behind_semaphore(bare.acquire), driver.select),
                Contender(EARLY, early, driver.select),
                ours,
                Contender(TIMED, manager.acquire_master, driver.select),
            )
            batches = {each.name: crowd(each) for each in lines}
            for batch in batches.values():
                await batch(1)
            with apart():
                sampled = await sample(batches, rounds=max(1, rounds // SESSIONS))
            for name, seconds in sampled.items():
                times.setdefault(name, []).extend(seconds)
    return {name: timing.per(TASKS) for name, timing in compared(times).items()}


def _draw(figure: Figure, found: Found) -> None:
    panel = figure.subplots()
    panel.barh(list(found), [timing.ratio for timing in found.values()], color=COLOURS[OURS])
    panel.axvline(1, color=COLOURS[BARE], linewidth=1)
    panel.invert_yaxis()
    panel.set_xlabel("times the bare pool")
