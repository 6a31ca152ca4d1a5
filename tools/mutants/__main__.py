"""`hatch run mutants`: put bugs into the core, one after another, and see the unit tests find them.

Each mutant runs the tests of the core in a process of its own, with one piece of one function's
source replaced. Exits 0 if each was found, else 1.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]

PATIENCE = 600.0
"""Seconds for the tests of one mutant, some ten times what all of them take."""


def run(mutant: Mutant) -> tuple[Mutant, str | None, float]:
    """The test that found it, or None; and the seconds that took."""
    began = time.perf_counter()
    try:
        done = _test(mutant)
    except subprocess.TimeoutExpired:
        return mutant, "its tests do not end", time.perf_counter() - began
    took = time.perf_counter() - began
    if done.returncode == 0:
        return mutant, None, took
    if done.returncode != 1:
        raise RuntimeError(f"{mutant.name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    found = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return mutant, found[0].partition(" - ")[0] if found else "?", took


def _test(mutant: Mutant) -> "subprocess.CompletedProcess[str]":
    """Its tests, with the mutant in the core. `TimeoutExpired`: they go on for ever."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"),
            *("-p", "tools.mutants.plugin", *mutant.tests),
        ],
        cwd=ROOT,
        env=os.environ | {"MUTANT": mutant.name},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def _run_all(mutants: list[Mutant], jobs: int) -> Iterator[tuple[Mutant, str | None, float]]:
    with ThreadPoolExecutor(jobs) as workers:
        yield from workers.map(run, mutants)


def main() -> int:
    parser = argparse.ArgumentParser(prog="hatch run mutants", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="those whose name has this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if options.only in mutant.name]
    console = Console()
    table = Table("mutant", "found by", "seconds")
    survivors = 0
    for mutant, found, took in _run_all(mutants, options.jobs):
        survivors += found is None
        table.add_row(mutant.name, found or "[bold red]nobody[/]", f"{took:.1f}")
        console.print(f"{found or 'NOBODY'}: {mutant.name}", highlight=False, markup=False)
    console.print(table)
    console.print(f"{len(mutants) - survivors} of {len(mutants)} found")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
