"""`pyscopg2 status`: what a manager knows when it has asked each host once."""

from dataclasses import asdict, dataclass

from pyscopg2.cli.exit_code import ExitCode
from pyscopg2.cli.settling import wait_settled
from pyscopg2.cli.source import make_manager
from pyscopg2.core.statistics import HostStats, Stats
from pyscopg2.core.topology import Topology

REFRESH_TIMEOUT = 1.0
"""Seconds that a host has for its answer."""

PATIENCE = 3.0
"""Seconds for all of them, their pools included."""


@dataclass(frozen=True, slots=True)
class Status:
    """One moment."""

    topology: Topology
    stats: Stats

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.FINE if self.topology.masters else ExitCode.BROKEN

    def as_dict(self) -> dict[str, object]:
        """For JSON: the topology's (`Topology.as_dict`), and the numbers of each host."""
        return {
            **self.topology.as_dict(),
            "stats": {
                "waiting": self.stats.waiting,
                "failovers": self.stats.failovers,
                "hosts": [_numbers(host) for host in self.stats],
            },
        }


async def ask_status(dsn: str) -> Status:
    """Takes as long as the slowest host, `PATIENCE` at most. `click.UsageError`: the DSN can't be
    used."""
    async with make_manager(dsn, refresh_timeout=REFRESH_TIMEOUT) as manager:
        await wait_settled(manager, PATIENCE)
        status = Status(manager.topology, manager.stats())
        await manager.terminate()
    return status


def _numbers(host: HostStats) -> dict[str, object]:
    return {**asdict(host), "role": host.role.value}
