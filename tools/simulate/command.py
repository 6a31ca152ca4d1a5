"""`hatch run simulate`: thousands of seeds against the invariants, or one seed and its trace.

Exits 0 if no invariant broke, else 1.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext

from .mutation import MUTATIONS, Mutation
from .simulation import Result, simulate

CHUNK = 20
"""Seeds that a process takes at a time."""

SHOWN = 60
"""Lines of the trace before the end."""


def again(seed: int, mutation: str | None = None) -> str:
    """The command line that runs this seed again and prints its whole trace."""
    wrong = "" if mutation is None else f' --mutation "{mutation}"'
    return f"hatch run simulate --seed {seed}{wrong}"


def tell(result: Result, mutation: str | None = None) -> str:
    """What broke, the events that led to it, and how to see it again."""
    lines = str(result.trace).splitlines()
    more = [f"… {len(lines) - SHOWN} lines before"] if len(lines) > SHOWN else []
    found = f"seed {result.seed}: {result.broken}"
    return "\n".join([*more, *lines[-SHOWN:], found, again(result.seed, mutation)])


def simulate_many(seeds: Sequence[int], jobs: int) -> Iterator[list[Result]]:
    """The results, in chunks, as they come; those of sound runs without their traces."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    with ProcessPoolExecutor(jobs) as workers:
        yield from workers.map(_simulate_chunk, chunks)


def _simulate_chunk(seeds: Sequence[int]) -> list[Result]:
    return [_without_trace(simulate(seed)) for seed in seeds]


def _without_trace(result: Result) -> Result:
    return result.without_trace() if result.broken is None else result


def seeds_until_found(mutation: Mutation, most: int) -> tuple[int, Result | None]:
    """How many seeds it took, and the run that found it; the mutation's hint comes first."""
    seeds = [mutation.hint, *range(most - 1)]
    with mutation.applied():
        for count, seed in enumerate(seeds, 1):
            result = simulate(seed)
            if result.broken is not None:
                return count, result
    return most, None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="hatch run simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first one (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--seed", type=int, help="run this one alone, and print its trace")
    parser.add_argument(
        "--mutation", metavar="NAME", help="with --seed: put this bug into the core"
    )
    parser.add_argument(
        "--mutations", action="store_true", help="search --seeds for each of the known bugs"
    )
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return _run_one(options.seed, options.mutation)
    if options.mutations:
        return _run_mutations(options.seeds)
    return _run_many(range(options.first, options.first + options.seeds), options.jobs)


def _run_one(seed: int, mutation: str | None) -> int:
    wrong = {each.name: each for each in MUTATIONS}
    if mutation is not None and mutation not in wrong:
        print("no such mutation; there are:", *wrong, sep="\n  ")
        return 2
    with nullcontext() if mutation is None else wrong[mutation].applied():
        result = simulate(seed)
    print(result.trace)
    print(f"seed {seed}: {result.steps} steps, {result.operations} operations, ", end="")
    print(f"{result.seconds:.1f} s of virtual time: {result.broken or 'all invariants hold'}")
    return 0 if result.broken is None else 1


def _run_mutations(most: int) -> int:
    missed = 0
    for mutation in MUTATIONS:
        began = time.monotonic()
        count, result = seeds_until_found(mutation, most)
        how = "NOT FOUND" if result is None else f"seed {result.seed}: {result.broken}"[:120]
        print(
            f"{count:5} seeds, {time.monotonic() - began:5.1f} s: {mutation.name}; {how}",
            flush=True,
        )
        missed += result is None
    return 1 if missed else 0


def _run_many(seeds: Sequence[int], jobs: int) -> int:
    began = shown = time.monotonic()
    results: list[Result] = []
    broken: list[Result] = []
    for chunk in simulate_many(seeds, jobs):
        results += chunk
        for result in chunk:
            if result.broken is not None:
                broken.append(result)
                print(tell(result), flush=True)
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"{len(results)} of {len(seeds)} seeds", file=sys.stderr, flush=True)
    print(
        f"{len(results)} seeds, {sum(r.steps for r in results)} steps, "
        f"{sum(r.operations for r in results)} operations, "
        f"{sum(r.seconds for r in results):.0f} s of virtual time "
        f"in {time.monotonic() - began:.0f} s; broken invariants: {len(broken)}"
    )
    if broken:
        print("seeds:", *(result.seed for result in broken))
    return 1 if broken else 0
