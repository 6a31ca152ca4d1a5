"""A `Status` for people."""

from rich.console import Group, RenderableType
from rich.text import Text

from pyscopg2.cli.status import Status
from pyscopg2.cli.views.hosts_table import show_hosts
from pyscopg2.cli.views.units import number


def show_status(status: Status, width: int) -> RenderableType:
    """``width``: of the terminal, in columns."""
    masters = ", ".join(host.address for host in status.topology.masters) or "none"
    line = f"master: {masters}; system {number(status.topology.system)}"
    return Group(show_hosts(status.topology, status.stats, width), Text(), Text(line))
