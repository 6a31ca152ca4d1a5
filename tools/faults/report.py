"""One table for people, the same for a document, and all figures for programs."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .contestants import CONTESTANTS
from .faults import FAULTS, Fault
from .figures import ALWAYS, NEVER, FigureName, Figures, Limit

Found = Mapping[tuple[str, str], Figures]
"""By fault and contestant."""

DOCS = Path(__file__).parents[2] / "packages" / "core" / "docs"
_MARK = "## Results"

COLUMNS = (
    "contestant", "outage", "errors", "longest", "wrong writes", "hung", "leftovers", "terminate",
    "exit", "limits",
)  # fmt: skip

_WORDS: Mapping[FigureName, str] = {
    "outage": "outage",
    "longest": "longest operation",
    "longest_read": "longest read",
    "wrong": "wrong writes",
    "hung": "hung operations",
    "terminate": "terminate()",
    "exit": "exit",
    "checks": "checks per host and refresh_delay",
    "tasks": "tasks left",
    "backends": "backends left",
}


def limits_of(fault: Fault) -> tuple[Limit, ...]:
    return (*fault.limits, *ALWAYS)


def missed(fault: Fault, figures: Figures) -> list[Limit]:
    return [limit for limit in limits_of(fault) if not figures.holds(limit)]


def misses(found: Found) -> list[str]:
    """Where pyscopg2 misses a limit, a line each."""
    lines: list[str] = []
    for (fault, name), figures in found.items():
        if not CONTESTANTS[name].is_ours:
            continue
        lines += [
            f"{fault}: {name}: {_WORDS[limit.figure]} {_number(figures.value(limit.figure))},"
            f" at most {limit.at_most:g}"
            for limit in missed(FAULTS[fault], figures)
        ]
        if figures.problem is not None:
            lines.append(f"{fault}: {name}: {figures.problem}")
    return lines


def show(found: Found, console: Console) -> None:
    """Print it, a table for each fault."""
    for name, fault in FAULTS.items():
        rows = _rows(found, name)
        if not rows:
            continue
        table = Table(title=heading(fault), title_justify="left", title_style="bold")
        for column in COLUMNS:
            left = column in ("contestant", "errors", "limits")
            table.add_column(column, justify="left" if left else "right", overflow="fold")
        for contestant, figures in rows.items():
            cells = _cells(fault, contestant, figures)
            style = "red" if missed(fault, figures) else ""
            table.add_row(*cells[:-1], Text(cells[-1], style))
        console.print(table)


def markdown(found: Found) -> str:
    """The same as sections of a document, below one with a heading of its own."""
    lines: list[str] = []
    for name, fault in FAULTS.items():
        rows = _rows(found, name)
        if not rows:
            continue
        lines += [f"### {_capital(fault.title)}", "", f"Outage: {fault.outage.value or 'none'}."]
        if fault.limits:
            lines[-1] += f" Limits: {_limits(fault)}."
        lines += ["", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        for contestant, figures in rows.items():
            lines.append("| " + " | ".join(_cells(fault, contestant, figures)) + " |")
        lines.append("")
    return "\n".join(lines)


def publish(found: Found, circumstances: str) -> None:
    """Put the tables into the docs' page, after its last heading but for theirs."""
    page = DOCS / "faults.md"
    text, mark, _ = page.read_text().partition(_MARK)
    page.write_text(f"{text}{mark}\n\n{circumstances}\n\n{markdown(found)}")


def as_json(found: Found) -> str:
    rows: list[dict[str, Any]] = []
    for (fault, contestant), figures in found.items():
        raw = {f.name: getattr(figures, f.name) for f in fields(figures)}
        values = {name: None if value == NEVER else value for name, value in raw.items()}
        never = [name for name, value in raw.items() if value == NEVER]
        limits = [asdict(limit) for limit in missed(FAULTS[fault], figures)]
        rows.append(
            {"fault": fault, "contestant": contestant, **values, "never": never, "missed": limits}
        )
    return json.dumps(rows, indent=1)


def heading(fault: Fault) -> str:
    limits = f"; limits: {_limits(fault)}" if fault.limits else ""
    outage = f" (outage: {fault.outage.value})" if fault.outage.value else ""
    return f"{fault.title}{outage}{limits}"


def _rows(found: Found, fault: str) -> dict[str, Figures]:
    return {name: figures for (of, name), figures in found.items() if of == fault}


def _limits(fault: Fault) -> str:
    return ", ".join(f"{_WORDS[limit.figure]} {limit.at_most:g}" for limit in fault.limits)


def _cells(fault: Fault, contestant: str, figures: Figures) -> list[str]:
    if figures.problem is not None and not figures.operations and figures.outage is None:
        return [contestant, "-", figures.problem, *["-"] * (len(COLUMNS) - 4), "missed"]
    errors = ", ".join(f"{count} {name}" for name, count in figures.errors.most_common())
    wrong = str(figures.wrong)
    if figures.wrong_until is not None:
        wrong += f" (until {_number(figures.wrong_until)})"
    leftovers: list[str] = []
    if figures.tasks:
        leftovers.append(f"tasks: {figures.tasks}")
    if figures.backends:
        leftovers.append(f"backends: {figures.backends}")
    over = missed(fault, figures)
    outage = _number(figures.outage)
    if figures.checks is not None:
        outage = f"{figures.checks:.2f} checks"
    return [
        contestant,
        outage,
        errors or "none",
        _number(figures.longest),
        wrong,
        str(figures.hung),
        ", ".join(leftovers) or "none",
        _number(figures.terminate),
        _number(figures.exit),
        "missed: " + ", ".join(_WORDS[limit.figure] for limit in over) if over else "kept",
    ]


def _number(value: float | None) -> str:
    """Seconds are floats, counts are not."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    if value == NEVER:
        return "never"
    return f"{value:.3f} s" if value < 0.9995 else f"{value:.1f} s"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
