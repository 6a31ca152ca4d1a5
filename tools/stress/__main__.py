"""`hatch run stress`: long proofs of what must not be lost, on real servers.

Exits 0 if nothing was lost, leaked or grows, else 1.
"""

import argparse
import asyncio
import logging
import sys

from rich.console import Console
from rich.table import Table

from .drivers import NAMES, driver, installed
from .proofs import Outcome, backends, deadlines, scopes
from .soak import Sample, grows, soak

ONCE, OFTEN = 10_000, 20_000


def _tell(console: Console, outcomes: list[Outcome]) -> None:
    table = Table("proof", "requests", "done", "cut", "errors", "lost", "leaked", "out", "slowest")
    for each in outcomes:
        errors = ", ".join(f"{count} {name}" for name, count in each.errors.most_common())
        slowest = f"{max(each.seconds):.3f} s" if each.seconds else ""
        table.add_row(
            each.name,
            *map(str, (each.requests, each.done, each.cut)),
            errors or "none",
            *map(str, (each.lost, each.leaked, each.out_of_service)),
            slowest,
        )
    console.print(table)


async def _prove(name: str, proof: str, count: int | None, runs: int) -> list[Outcome]:
    made = driver(name)
    if proof == "scopes":
        return [await scopes(made, count or OFTEN)]
    if proof == "deadlines":
        return [await deadlines(made, count or ONCE) for _ in range(runs)]
    return [await backends(made, count or 12)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="hatch run stress", description=__doc__)
    parser.add_argument("proof", choices=("scopes", "deadlines", "backends", "soak"))
    parser.add_argument("--adapter", choices=NAMES, default="asyncpg")
    parser.add_argument("--count", type=int, help="requests, time-outs or rounds")
    parser.add_argument("--runs", type=int, default=1, help="of the time-outs")
    parser.add_argument("--minutes", type=float, default=20.0, help="of the soak")
    options = parser.parse_args()
    console = Console(width=160)
    logging.getLogger().addHandler(logging.NullHandler())
    if options.proof == "soak":
        names = installed()
        console.print(f"adapters: {', '.join(names)}")

        def tell(sample: Sample) -> None:
            fields = sample._asdict().items()
            console.print(", ".join(f"{name} {value:.6g}" for name, value in fields))

        samples = asyncio.run(soak(names, options.minutes, tell))
        found = grows(samples)
        console.print("\n".join(found) or "nothing grows")
        return 1 if found else 0
    outcomes = asyncio.run(_prove(options.adapter, options.proof, options.count, options.runs))
    console.print(f"{options.adapter}:")
    _tell(console, outcomes)
    return 0 if all(outcome.kept for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
