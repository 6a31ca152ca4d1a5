"""All hosts at once, and what a manager makes of them."""

import asyncio
import time

from pyscopg2.cli.check import deadlines
from pyscopg2.cli.check.finding import Finding, Kind, Severity
from pyscopg2.cli.check.host_check import HostReport, check_host
from pyscopg2.cli.check.picture import judge_topology
from pyscopg2.cli.check.report import Report, in_order
from pyscopg2.cli.settling import settle
from pyscopg2.cli.source import make_manager, resolve_dsn
from pyscopg2.core.topology import Topology


async def check_cluster(dsn: str) -> Report:
    """Takes `deadlines.ALL` and a moment at most. `click.UsageError`: the DSN can't be used."""
    begun = time.perf_counter()
    resolved = resolve_dsn(dsn)
    manager = make_manager(dsn, refresh_timeout=deadlines.CHECK)
    async with asyncio.TaskGroup() as group:
        checks = [group.create_task(check_host(target)) for target in resolved.targets]
        known = group.create_task(settle(manager, deadlines.ALL))
    hosts = tuple(check.result() for check in checks)
    found = [Finding(Kind.IGNORED, warning) for warning in resolved.warnings]
    found += _findings(hosts, known.result())
    return Report(
        hosts,
        known.result(),
        in_order(found, tuple(host.address for host in hosts)),
        time.perf_counter() - begun,
    )


def _findings(hosts: tuple[HostReport, ...], topology: Topology) -> list[Finding]:
    found = [finding for host in hosts for finding in host.findings]
    explained = {each.address for each in found if each.kind.severity is Severity.FAULT}
    return [*found, *judge_topology(topology, explained)]
