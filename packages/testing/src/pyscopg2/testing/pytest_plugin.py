"""For pytest: fixtures of real PostgreSQL clusters, and what the contracts' runs tell at their end.

pytest loads this module in every run of everybody who has the package installed. So it imports
nothing but pytest until a fixture is used: the extra ``cluster`` may not be there.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pyscopg2.testing.cluster import LocalCluster
    from pyscopg2.testing.postgres import AccountMode, PostgresBinaries


# What is asserted there is shown as in tests of one's own. Before they are imported.
pytest.register_assert_rewrite(
    "pyscopg2.testing.bench",
    "pyscopg2.testing.contract",
    "pyscopg2.testing.contracts",
    "pyscopg2.testing.manager_contract",
)

_GAP = "pyscopg2-gap"
"""As in `contracts.gaps`, which is not imported here."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the users of the adapters that were tested lose, as these have declared."""
    gaps = {
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == _GAP
    }
    if gaps:
        terminalreporter.section("what users of these drivers lose")
        for gap in sorted(gaps):
            terminalreporter.line(gap)


class MakeLocalCluster(Protocol):
    """The type of the fixture `make_local_cluster`."""

    def __call__(
        self,
        replicas: int = 2,
        *,
        settings: Mapping[str, str] | None = None,
        directory: Path | None = None,
        timeout: float = 30.0,
        binaries: PostgresBinaries | None = None,
        account: AccountMode | None = None,
    ) -> LocalCluster:
        """Start a cluster, which ends with the test. The arguments are `LocalCluster`'s."""
        ...


@pytest.fixture
def make_local_cluster() -> Iterator[MakeLocalCluster]:
    """A function that starts a `LocalCluster` as you configure it; it ends with the test."""
    from pyscopg2.testing.cluster import LocalCluster

    with contextlib.ExitStack() as clusters:

        def make(
            replicas: int = 2,
            *,
            settings: Mapping[str, str] | None = None,
            directory: Path | None = None,
            timeout: float = 30.0,
            binaries: PostgresBinaries | None = None,
            account: AccountMode | None = None,
        ) -> LocalCluster:
            cluster = LocalCluster(
                replicas,
                settings=settings,
                directory=directory,
                timeout=timeout,
                binaries=binaries,
                account=account,
            )
            return clusters.enter_context(cluster)

        yield make


@pytest.fixture
def local_cluster(make_local_cluster: MakeLocalCluster) -> LocalCluster:
    """A running `LocalCluster` of a primary and two replicas, the test's own."""
    return make_local_cluster()
