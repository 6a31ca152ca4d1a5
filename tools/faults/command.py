"""`hatch run faults`: what faults of a cluster cost those who use it.

Starts a real PostgreSQL cluster on this machine, lets pyscopg2 with each adapter, hasql, and bare
drivers with target_session_attrs work on it, and breaks it: kills, freezes, cuts off. Prints what
each fault cost each of them. Exits 0 only if pyscopg2 kept all limits, else 1.
"""

import argparse
import asyncio
import os
import platform
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

from rich.console import Console

from pyscopg2.testing.cluster import ClusterError, LocalCluster

from .arena import SETTINGS, Arena, ContestantError, python_of
from .bench import Bench, scenarios
from .contestants import CONTESTANTS, QUICK
from .faults import FAULTS
from .figures import Figures, merged
from .report import as_json, markdown, misses, publish, show


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="hatch run faults",
        description=__doc__.partition("\n\n")[2] if __doc__ else None,
    )
    parser.add_argument(
        "--only", action="append", choices=FAULTS, metavar="FAULT", help=", ".join(FAULTS)
    )
    parser.add_argument(
        "--contestant",
        action="append",
        choices=CONTESTANTS,
        metavar="NAME",
        help=", ".join(CONTESTANTS),
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"these contestants only: {', '.join(QUICK)}"
    )
    parser.add_argument(
        "--rounds", type=_positive, default=1, metavar="N", help="how often; default %(default)s"
    )
    parser.add_argument(
        "--together",
        type=_positive,
        default=2,
        metavar="N",
        help="contestants that meet a fault at the same time; default %(default)s",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables there, for a document"
    )
    parser.add_argument("--docs", action="store_true", help="put the tables into the docs")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


async def _run(arguments: argparse.Namespace, cluster: LocalCluster, console: Console) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    began = time.monotonic()
    names: list[str] = arguments.contestant or list(QUICK if arguments.quick else CONTESTANTS)
    todo = scenarios(arguments.only or list(FAULTS), names, arguments.together, arguments.rounds)
    pythons = {
        environment: await python_of(environment)
        for environment in {CONTESTANTS[name].environment for name in names}
    }
    rounds: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    bench = Bench(Arena(cluster), pythons, lambda line: console.print(line, style="dim"))
    await bench.run(todo, lambda fault, name, figures: rounds[fault, name].append(figures))
    found = {key: merged(figures) for key, figures in rounds.items()}
    show(found, console)
    if arguments.json:
        arguments.json.write_text(as_json(found) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(markdown(found))
    if arguments.docs:
        publish(found, _circumstances(cluster, arguments.rounds))
    lines = misses(found)
    for line in lines:
        console.print(f"missed: {line}", style="red")
    verdict = f"{len(lines)} limits missed" if lines else "pyscopg2 kept all limits"
    console.print(f"{verdict}; {len(todo)} scenarios in {time.monotonic() - began:.0f} s")
    return 1 if lines else 0


def _circumstances(cluster: LocalCluster, rounds: int) -> str:
    version = cluster.psql(cluster.primary, "SHOW server_version")
    return (
        f"{time.strftime('%Y-%m-%d')}: PostgreSQL {version}, {platform.python_implementation()}"
        f" {platform.python_version()}, {platform.system()} {platform.machine()},"
        f" {os.cpu_count()} cores; rounds: {rounds}. The median outage, and the worst of everything"
        " else."
    )


def main() -> int:
    """The whole program; returns its exit code."""
    arguments = _arguments()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    cluster = LocalCluster(settings=SETTINGS)
    try:
        try:
            return asyncio.run(_run(arguments, cluster, console))
        finally:
            cluster.close()
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except (ClusterError, ContestantError, ExceptionGroup) as error:
        print(f"The bench could not go on: {error}", file=sys.stderr)
        return 1
