# pyright: reportUnknownMemberType=false
# matplotlib's types are partial.
"""What a benchmark found: a table for the terminal and the docs, and a plot."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

DOCS = Path(__file__).parents[2] / "packages" / "core" / "docs"

mpl.rcParams |= {
    "svg.hashsalt": "pyscopg2",  # the same figures make the same file
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
}

COLOURS = {"bare": "#8a8f98", "pyscopg2": "#1f6feb", "hasql": "#d1762c"}


@dataclass(frozen=True, slots=True)
class Report:
    """One table; the first columns, as many as ``labels``, are text, the others figures."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1
    draw: Callable[[Figure], None] | None = None
    data: Any = None
    """For `--json`."""

    def show(self, console: Console) -> None:
        table = Table(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="left" if number < self.labels else "right")
        before = None
        for row in self.rows:
            if self.labels > 1 and before not in (None, row[: self.labels - 1]):
                table.add_section()
            before = row[: self.labels - 1]
            table.add_row(*row)
        console.print(table)

    @property
    def markdown(self) -> str:
        rules = ["---" if n < self.labels else "---:" for n in range(len(self.columns))]
        lines = [self.columns, rules, *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def plot(self, folder: Path) -> None:
        """As ``NAME.svg`` there, where there is something to draw."""
        if self.draw is not None:
            folder.mkdir(parents=True, exist_ok=True)
            figure = Figure(figsize=(7.5, 3.6), layout="constrained")
            self.draw(figure)
            path = folder / f"{self.name}.svg"
            figure.savefig(path, metadata={"Date": None}, transparent=False)
            # matplotlib ends lines with blanks.
            path.write_text("\n".join(map(str.rstrip, path.read_text().splitlines())) + "\n")


def publish(reports: Sequence[Report], circumstances: str) -> None:
    """Put tables and plots into the docs' page, each between its two marks."""
    page = DOCS / "benchmarks.md"
    text = _between(page.read_text(), "circumstances", circumstances)
    for report in reports:
        shown = report.markdown
        if report.draw is not None:
            report.plot(DOCS / "benchmarks")
            shown = f"![{report.title}](benchmarks/{report.name}.svg)\n\n{shown}"
        text = _between(text, report.name, shown)
    page.write_text(text)


def _between(page: str, name: str, text: str) -> str:
    marks = re.compile(rf"(?s)(<!-- {name} -->\n).*?(<!-- end of {name} -->)")
    if marks.search(page) is None:
        raise LookupError(f"the page has no place for {name}")
    return marks.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)


def save(reports: Sequence[Report], path: Path) -> None:
    """All figures, unrounded, as JSON."""
    path.write_text(json.dumps({report.name: report.data for report in reports}, indent=1))
