"""What `watch` shows in a terminal: the hosts, and the last events below."""

import time

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from pyscopg2.cli.chronicle import Line
from pyscopg2.cli.views.hosts_table import show_hosts
from pyscopg2.cli.views.tables import DIM
from pyscopg2.core.events import CheckFailed, CheckRecovered, Event, HostChanged, MasterChanged
from pyscopg2.core.statistics import Stats
from pyscopg2.core.topology import Topology

_STYLES: dict[type[Event], str] = {
    CheckFailed: "red",
    CheckRecovered: "green",
    HostChanged: "cyan",
    MasterChanged: "bold green",
}


def show_moment(
    topology: Topology, stats: Stats, lines: list[Line], width: int, height: int
) -> RenderableType:
    """``width`` and ``height``: of the terminal. As many of the last lines as there is room for."""
    masters = ", ".join(host.address for host in topology.masters)
    head = Text(f"{time.strftime('%H:%M:%S')}  master: ")
    head.append(masters or "none", style="bold green" if masters else "bold red")
    head.append(f"  failovers: {stats.failovers}")
    head.append("  Ctrl-C ends", style=DIM)
    errors = sum(bool(host.reason) for host in topology)
    # Beside them: the head, a blank, the names of the columns, the rule, and the cursor's line.
    room = max(height - len(topology) - errors - 5, 1)
    events = [_line(line) for line in lines[-room:]]
    for each in (head, *events):
        each.no_wrap, each.overflow = True, "ellipsis"
    rule = Rule("events", align="left", style=DIM)
    return Group(head, Text(), show_hosts(topology, stats, width, cut=True), rule, *events)


def _line(line: Line) -> Text:
    return Text(str(line), style=_STYLES.get(type(line.event), ""))
