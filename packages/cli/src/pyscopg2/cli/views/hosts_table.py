"""The hosts of a manager as it knows them now: what `status` and `watch` share."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pyscopg2.cli.views import units
from pyscopg2.cli.views.tables import make_table, role
from pyscopg2.core.statistics import Stats
from pyscopg2.core.topology import Topology

_WIDE = 110
"""Columns from which on there is room for more than the least."""

_RIGHT = ("answers in", "lag", "timeline", "checks", "failed")


def show_hosts(topology: Topology, stats: Stats, width: int, *, cut: bool = False) -> Group:
    """A line for each host, then one for each error that stands. ``width``: of the terminal, in
    columns. ``cut``: these are single lines, whatever is lost."""
    errors = [Text(f"{host.address}: {host.reason}", "red") for host in topology if host.reason]
    if cut:
        for error in errors:
            error.no_wrap, error.overflow = True, "ellipsis"
    return Group(_table(topology, stats, width, cut), *errors)


def _table(topology: Topology, stats: Stats, width: int, cut: bool) -> Table:
    wide = ("timeline", "checks") if width >= _WIDE else ()
    table = make_table("host", "role", "serves", "answers in", "lag", *wide, "failed", right=_RIGHT)
    if cut:
        table.columns[0].no_wrap = True
        table.columns[0].overflow = "ellipsis"
        table.columns[0].max_width = width // 3
    for host, numbers in zip(topology, stats, strict=True):
        timeline = None if host.answer is None else host.answer.timeline
        table.add_row(
            host.address,
            role(host),
            "yes" if host.serving else "no",
            units.seconds(host.response_time),
            units.seconds(numbers.lag),
            *((units.number(timeline), str(numbers.checks)) if wide else ()),
            str(numbers.failed_checks),
        )
    return table
