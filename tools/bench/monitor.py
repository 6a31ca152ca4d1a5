# pyright: reportUnknownMemberType=false
# matplotlib's types are partial.
"""What it costs to monitor so many hosts, each checked once a second."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from matplotlib.figure import Figure

from pyscopg2.base import BasePoolManager
from pyscopg2.testing.fake import FakeAdapter, FakeConnection, FakeNetwork, FakePool

from . import null
from .contenders import HASQL, OURS, managed
from .report import COLOURS, Report

HOSTS = (1, 10, 30, 100, 300)

FAKE = "pyscopg2, fake adapter"

Run = Callable[[Coroutine[Any, Any, float]], float]


def measure(run: Run, seconds: float) -> Report:
    """``seconds`` for each number of hosts and each manager."""
    found = {
        name: [run(_share(manager(count), seconds)) for count in HOSTS]
        for name, manager in {FAKE: _fake, OURS: _ours, HASQL: _hasql}.items()
    }
    return Report(
        "monitor",
        "one core's share for monitoring, each host checked once a second",
        ("hosts", f"{FAKE}", f"{OURS}, null driver", f"{HASQL}, null driver"),
        [
            (str(count), *(f"{found[name][n]:.2%}" for name in (FAKE, OURS, HASQL)))
            for n, count in enumerate(HOSTS)
        ],
        draw=lambda figure: _draw(figure, found),
        data={"hosts": HOSTS, **found},
    )


def fake_manager(network: FakeNetwork) -> type[BasePoolManager[FakePool, FakeConnection]]:
    """A manager class for this network."""
    return type("PoolManager", (BasePoolManager,), {"adapter": FakeAdapter(network)})


def _fake(count: int) -> AbstractAsyncContextManager[Any]:
    network = FakeNetwork.cluster(count - 1)
    return managed(fake_manager(network), network.dsn, {"max_size": 10})


def _ours(count: int) -> AbstractAsyncContextManager[Any]:
    return managed(null.PoolManager, _dsn(count), {"size": 10})


def _hasql(count: int) -> AbstractAsyncContextManager[Any]:
    return managed(null.HasqlPoolManager, _dsn(count), {"size": 10})


def _dsn(count: int) -> str:
    hosts = ",".join(["master:5432", *(f"replica{n}:5432" for n in range(1, count))])
    return f"postgresql://bench@{hosts}/bench"


async def _share(manager: AbstractAsyncContextManager[Any], seconds: float) -> float:
    async with manager:
        # Not the start, at which all hosts are asked at once.
        await asyncio.sleep(0.5)
        began = time.perf_counter()
        spent = time.process_time()
        await asyncio.sleep(seconds)
        return (time.process_time() - spent) / (time.perf_counter() - began)


def _draw(figure: Figure, found: dict[str, list[float]]) -> None:
    axes = figure.subplots()
    for name, shares in found.items():
        axes.plot(
            HOSTS,
            [share * 100 for share in shares],
            "o--" if name == FAKE else "o-",
            color=COLOURS[name.partition(",")[0]],
            label=name if name == FAKE else f"{name}, null driver",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(HOSTS, [str(count) for count in HOSTS])
    axes.set_xlabel("hosts")
    axes.set_ylabel("% of one core")
    axes.legend(frameon=False)
