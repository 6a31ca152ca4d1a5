"""`hatch run attempts`: what is promised of attempts, on a real cluster, against rows.

Exits 0 if every promise was kept, else 1.
"""

import argparse
import asyncio
import logging
import sys

from rich.console import Console
from rich.table import Table

from pyscopg2.testing.cluster import LocalCluster

from .faults import FAULTS, FOR_FEW
from .scenarios import Outcome, dead, writers

FEW = 20
"""Less than a pool has slots."""


async def _run(options: argparse.Namespace, console: Console) -> list[Outcome]:
    outcomes: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        table = Table(outcome.name, "kept" if outcome.is_kept else "[bold red]NOT KEPT[/]")
        for name, figure in outcome.figures.items():
            table.add_row(name, figure)
        console.print(table)
        for miss in outcome.misses[:10]:
            console.print(miss, highlight=False)

    settings = {"synchronous_commit": "on", "max_connections": "200"}
    with LocalCluster(settings=settings) as cluster:
        for name, fault in (FAULTS | FOR_FEW).items():
            if options.only is None or options.only in name:
                count = min(options.writers, FEW) if name in FOR_FEW else options.writers
                tell(await writers(cluster, name, fault, count, options.seconds, options.timeout))
        if options.only is None:
            tell(await dead(cluster, options.writers, 3.0))
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(prog="hatch run attempts", description=__doc__)
    parser.add_argument("--writers", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=6.0, help="beside each fault")
    parser.add_argument("--timeout", type=float, default=30.0, help="of each writer's attempts")
    parser.add_argument("--only", help="the faults whose names contain this")
    options = parser.parse_args()
    # What happens to hosts here is no news.
    logging.getLogger().addHandler(logging.NullHandler())
    outcomes = asyncio.run(_run(options, Console(width=110)))
    return 0 if outcomes and all(outcome.is_kept for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
