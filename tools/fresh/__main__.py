"""`hatch run fresh`: what is promised of reads with bounds, on a real cluster, against rows.

Exits 0 if every promise was kept, else 1.
"""

import argparse
import asyncio
import logging
import sys

from rich.console import Console
from rich.table import Table

from pyscopg2.testing.cluster import LocalCluster

from .scenarios import Outcome, claims, on_demand, own_writes, quiet


async def _run(times: int, reads: int, seconds: float, console: Console) -> list[Outcome]:
    outcomes: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        table = Table(outcome.name, "kept" if outcome.is_kept else "[bold red]NOT KEPT[/]")
        for name, figure in outcome.figures.items():
            table.add_row(name, figure)
        console.print(table)
        for miss in outcome.misses[:10]:
            console.print(miss, highlight=False)

    with LocalCluster(settings={"synchronous_commit": "on"}) as cluster:
        tell(await quiet(cluster, seconds, is_open=False))
        tell(await quiet(cluster, seconds, is_open=True))
        tell(await own_writes(cluster, times, late=1))
        tell(await own_writes(cluster, times, late=2, patience=0.2))
        tell(await on_demand(cluster, seconds / 3))
        tell(await claims(cluster, reads))
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(prog="hatch run fresh", description=__doc__)
    parser.add_argument("--times", type=int, default=1000, help="writes that are read back")
    parser.add_argument("--reads", type=int, default=2000, help="claims against rows")
    parser.add_argument("--seconds", type=float, default=30.0, help="on a quiet cluster")
    options = parser.parse_args()
    # What happens to hosts here is no news.
    logging.getLogger().addHandler(logging.NullHandler())
    outcomes = asyncio.run(_run(options.times, options.reads, options.seconds, Console(width=110)))
    return 0 if all(outcome.is_kept for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
