"""A `Report` for people: a line for each host, then what was found, the worst first."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pyscopg2.cli.check.finding import Finding, Severity
from pyscopg2.cli.check.picture import behind
from pyscopg2.cli.check.report import Report
from pyscopg2.cli.views import units
from pyscopg2.cli.views.tables import DIM, SEVERITY_STYLES, make_table, role


def show_report(report: Report) -> RenderableType:
    """As wide as the terminal, never wider."""
    return Group(_hosts(report), Text(), *map(_finding, report.findings), _sum(report))


def _hosts(report: Report) -> Table:
    right = ("connect", "login", "timeline", "behind")
    table = make_table("host", "role", "connect", "TLS", "login", "timeline", "behind", right=right)
    for host in report.hosts:
        state = report.topology[host.address]
        tls = {None: units.NOTHING, True: "offered", False: "no"}[host.offers_tls]
        table.add_row(
            host.address,
            role(state),
            units.seconds(host.connect_time),
            tls,
            units.seconds(host.login_time),
            units.number(None if state.answer is None else state.answer.timeline),
            units.size(behind(report.topology, state)),
        )
    return table


def _finding(finding: Finding) -> RenderableType:
    kind = finding.kind
    where = "" if finding.address is None else f"{finding.address}: "
    table = Table.grid(padding=(0, 1))
    table.add_column(width=len(Severity.WARNING.value), no_wrap=True)
    table.add_column(overflow="fold")
    severity = Text(kind.severity.value.upper(), style=SEVERITY_STYLES[kind.severity])
    table.add_row(severity, Text(f"{where}{finding.text} [{kind.label}]"))
    table.add_row("", Text(kind.remedy, style=DIM))
    table.add_row("", "")
    return table


def _sum(report: Report) -> Text:
    counts = [(report.count(severity), severity.value) for severity in Severity]
    told = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts)
    return Text(f"{told}; {units.seconds(report.seconds)}")
