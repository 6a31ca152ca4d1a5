"""What a transaction of a SQLAlchemy session costs over a manager, beside one over an engine."""

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from sqlalchemy import literal, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from pyscopg2.sqlalchemy import PoolManager, SessionMaker
from pyscopg2.testing.cluster import LocalCluster

from .contenders import SIZE, managed
from .placement import apart
from .report import Report
from .rounds import Batch, Timing, compared, sample

Found = dict[str, dict[str, Timing]]

QUERY = select(literal(1))
ENGINE = "create_async_engine"


def measure(run: Callable[[Coroutine[Any, Any, Found]], Found], rounds: int) -> Report:
    found = run(_measure(rounds))
    return Report(
        "sessions",
        "a session's transaction: `async with sessions() as session`, a query, and a commit",
        ("driver", "sessions of", "µs", "times the engine's"),
        [
            (driver, name, f"{timing.microseconds:.0f}", f"{timing.ratio:.3f}")
            for driver, timings in found.items()
            for name, timing in timings.items()
        ],
        labels=2,
        data={
            driver: {name: (timing.seconds, timing.ratio) for name, timing in timings.items()}
            for driver, timings in found.items()
        },
    )


async def _measure(rounds: int) -> Found:
    found: Found = {}
    with LocalCluster(1) as cluster:
        for driver in ("asyncpg", "psycopg"):
            found[driver] = await _compare(cluster.primary.dsn, driver, rounds)
    return found


async def _compare(dsn: str, driver: str, rounds: int) -> dict[str, Timing]:
    dsn = dsn.replace("postgresql://", f"postgresql+{driver}://", 1)
    options = {"pool_size": SIZE}
    async with AsyncExitStack() as stack:
        engine = create_async_engine(dsn, **options)
        stack.push_async_callback(engine.dispose)
        manager: PoolManager = await stack.enter_async_context(managed(PoolManager, dsn, options))
        batches = {
            ENGINE: _transactions(async_sessionmaker(engine)),
            "manager.engine()": _transactions(async_sessionmaker(manager.engine())),
            "SessionMaker": _transactions(SessionMaker(manager).master),
        }
        for batch in batches.values():
            await batch(10)
        with apart():
            return compared(await sample(batches, rounds=rounds, seconds=0.05))


def _transactions(make: Callable[[], AsyncSession]) -> Batch:
    async def batch(count: int) -> None:
        for _ in range(count):
            async with make() as session:
                await session.scalar(QUERY)
                await session.commit()

    return batch
