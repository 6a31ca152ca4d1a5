"""All mistakes, each in a process of its own: `hatch run mistakes`. With words: those that have one
of them in their names.

Exits with 1 where one is not found.
"""

import sys

from rich.console import Console
from rich.table import Table
from tests.testing.mistakes.finding import Finding, find
from tests.testing.mistakes.mistakes import MISTAKES, Mistake


def main() -> int:
    words = sys.argv[1:]
    chosen = [each for each in MISTAKES if not words or any(word in each.name for word in words)]
    table = Table("mistake", "found by", "because", "s")
    missed = 0
    for mistake in chosen:
        finding = tried(mistake)
        missed += not finding.is_found
        first, *_ = finding.said.splitlines() or ["passed"]
        because = first if finding.is_found else f"[red]not found:[/] {first}"
        table.add_row(mistake.name, mistake.test, because, f"{finding.seconds:.1f}")
    Console().print(table)
    print(f"{len(chosen) - missed} of {len(chosen)} found")
    return 1 if missed else 0


def tried(mistake: Mistake) -> Finding:
    try:
        (finding,) = find([mistake])
    except RuntimeError as exc:
        return Finding(mistake, str(exc), 0.0)
    return finding


if __name__ == "__main__":
    sys.exit(main())
