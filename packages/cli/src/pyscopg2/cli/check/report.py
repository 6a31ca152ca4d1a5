"""What a check found in all: a frozen value, for people and programs."""

from dataclasses import dataclass

from pyscopg2.cli.check.finding import Finding, Severity
from pyscopg2.cli.check.host_check import HostReport
from pyscopg2.cli.check.picture import behind
from pyscopg2.cli.exit_code import ExitCode
from pyscopg2.core.topology import Topology


@dataclass(frozen=True, slots=True)
class Report:
    """Of all hosts, in the order of the DSN."""

    hosts: tuple[HostReport, ...]
    topology: Topology
    """What a manager makes of them."""
    findings: tuple[Finding, ...]
    """The worst first; of one severity, in the order of the DSN, those of all hosts last."""
    seconds: float
    """How long it took."""

    def count(self, severity: Severity) -> int:
        return sum(finding.kind.severity is severity for finding in self.findings)

    @property
    def exit_code(self) -> ExitCode:
        if self.count(Severity.FAULT):
            return ExitCode.BROKEN
        return ExitCode.WARNED if self.count(Severity.WARNING) else ExitCode.FINE

    def as_dict(self) -> dict[str, object]:
        """For JSON. Times are in seconds."""
        return {
            "exit_code": int(self.exit_code),
            "seconds": round(self.seconds, 3),
            "hosts": [self._host(host) for host in self.hosts],
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def _host(self, host: HostReport) -> dict[str, object]:
        state = self.topology[host.address]
        facts = host.facts
        return {
            "address": host.address,
            "resolves_to": list(host.addresses),
            "connect_time": host.connect_time,
            "offers_tls": host.offers_tls,
            "login_time": host.login_time,
            "version": None if facts is None else facts.version,
            "pooler": None if host.pooler is None else host.pooler.value,
            "clock_offset": None if facts is None else facts.clock_offset,
            "role": state.role.value,
            "timeline": None if state.answer is None else state.answer.timeline,
            "bytes_behind": behind(self.topology, state),
        }


def in_order(findings: list[Finding], hosts: tuple[str, ...]) -> tuple[Finding, ...]:
    """As `Report.findings` says, each once."""
    severities = list(Severity)
    places = {address: place for place, address in enumerate(hosts)}

    def rank(finding: Finding) -> tuple[int, int]:
        place = len(hosts) if finding.address is None else places[finding.address]
        return severities.index(finding.kind.severity), place

    return tuple(sorted(dict.fromkeys(findings), key=rank))
