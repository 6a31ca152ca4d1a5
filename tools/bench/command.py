"""`hatch run bench`: what pyscopg2 costs and what it gains, in figures."""

import argparse
import asyncio
import logging
import os
import platform
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from rich.console import Console

from . import line, memory, monitor, outage, overhead, release, sessions, tail, watched
from .contenders import DRIVERS
from .report import Report, publish, save

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
BENCHES = {
    module.__name__.rpartition(".")[2]: module
    for module in (overhead, sessions, watched, line, tail, monitor, release, memory, outage)
}

T = TypeVar("T")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="hatch run bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{name:9} {module.__doc__}" for name, module in BENCHES.items()),
    )
    parser.add_argument("bench", choices=[*BENCHES, "all"])
    parser.add_argument("--quick", action="store_true", help="shorter, and less exact")
    parser.add_argument(
        "--loop", choices=[*LOOPS, "both"], help="default: asyncio; for overhead in `all` both"
    )
    parser.add_argument(
        "--driver", action="append", choices=DRIVERS, help="overhead: only these; repeat it"
    )
    parser.add_argument("--rounds", type=int, help="of those that are interleaved")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write plots there")
    parser.add_argument("--docs", action="store_true", help="put tables and plots into the docs")
    return parser.parse_args()


def _run_on(loop: str, main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main)


def _measure(name: str, arguments: argparse.Namespace) -> list[Report]:
    quick: bool = arguments.quick
    loop: str = arguments.loop if arguments.loop in LOOPS else "asyncio"
    rounds: int = arguments.rounds or (6 if quick else 40)

    def run(main: Coroutine[Any, Any, T]) -> T:
        return _run_on(loop, main)

    match name:
        case "overhead":
            both = arguments.loop == "both" or (
                arguments.bench == "all" and not quick and arguments.loop is None
            )
            loops = list(LOOPS) if both else [loop]
            drivers = arguments.driver or list(DRIVERS)
            return overhead.reports(overhead.measure(_run_on, drivers, loops, rounds))
        case "sessions":
            return [sessions.measure(run, rounds * 2)]
        case "watched":
            return [watched.measure(run, rounds * 2)]
        case "line":
            return [line.measure(run, rounds * 2)]
        case "tail":
            return [tail.measure(run, 1.0 if quick else 5.0)]
        case "monitor":
            return [monitor.measure(run, 0.5 if quick else 4.0)]
        case "release":
            return [release.measure(run, rounds)]
        case "memory":
            return [memory.measure(run, *((5_000, 50) if quick else (100_000, 1_000)))]
        case "outage":
            return [outage.measure(run, 1.0 if quick else 5.0)]
        case _:
            raise LookupError(name)


def _circumstances() -> str:
    packages = ("asyncpg", "psycopg", "psycopg-pool", "SQLAlchemy", "aiopg", "hasql", "uvloop")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{time.strftime('%Y-%m-%d')}: {platform.python_implementation()} "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores; {versions}."
    )


def main() -> int:
    """The whole program; returns its exit code."""
    arguments = _arguments()
    # Of connections that hasql gives back within a transaction: one line each.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    # What the outage is told by.
    logging.getLogger("pyscopg2").setLevel(logging.CRITICAL)
    console = Console(highlight=False, width=None if os.isatty(1) else 110)
    reports: list[Report] = []
    for name in BENCHES if arguments.bench == "all" else [arguments.bench]:
        for report in _measure(name, arguments):
            report.show(console)
            reports.append(report)
            if arguments.plots:
                report.plot(arguments.plots)
    if arguments.json:
        save(reports, arguments.json)
    if arguments.docs:
        publish(reports, _circumstances())
    return 0
