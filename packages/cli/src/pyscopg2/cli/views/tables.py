"""Tables and colours that the views share. They are as wide as the terminal, never wider."""

from typing import Literal

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from pyscopg2.cli.check.finding import Severity
from pyscopg2.core.topology import HostState, Role

ROLE_STYLES = {
    Role.UNKNOWN: "dim",
    Role.MASTER: "bold green",
    Role.REPLICA: "cyan",
    Role.SUPERSEDED: "bold yellow",
    Role.RIVAL: "bold yellow",
    Role.FOREIGN: "bold yellow",
    Role.UNAVAILABLE: "bold red",
}

SEVERITY_STYLES = {
    Severity.FAULT: "bold red",
    Severity.WARNING: "bold yellow",
    Severity.NOTE: "bold cyan",
}

DIM = Style(dim=True)


def make_console() -> Console:
    """On standard output, as it is now. What servers say is no markup."""
    return Console(markup=False, emoji=False, highlight=False)


def make_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """One line above, no boxes; those columns whose names are in ``right`` end at their right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        # Long addresses go over several lines; all else is short.
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column != "host")
    return table


def role(host: HostState) -> Text:
    """With its colour; a host that is overdue has a mark."""
    text = Text(host.role.value, style=ROLE_STYLES[host.role])
    if host.overdue:
        text.append(" late", style="yellow")
    return text
