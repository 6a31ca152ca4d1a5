"""A primary, its standby, and a login on both whose sessions have defaults of their own."""

from collections.abc import Coroutine
from typing import Any, Generic

import pytest

from pyscopg2.core.adapter import ConnT, PoolT, Reserves, TellsRecovery
from pyscopg2.testing.bench import Bench, Subject
from pyscopg2.testing.cluster import LocalCluster, Node
from pyscopg2.testing.contracts.adapter.booth import Booth

__all__ = ("LOGIN", "ROLES", "SETTINGS", "Pair")

LOGIN = "tuned"
"""A role without privileges, whose sessions have settings of their own. Its password, too."""

SETTINGS = {
    "client_encoding": "sql_ascii",
    "DateStyle": "German",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "search_path": "shadow, pg_catalog",
    "statement_timeout": "20",
}

ROLES = f"""
    CREATE ROLE {LOGIN} LOGIN PASSWORD '{LOGIN}';
    CREATE SCHEMA shadow;
    GRANT USAGE ON SCHEMA shadow TO {LOGIN};
    CREATE FUNCTION shadow.set_config(text, text, boolean) RETURNS text
        LANGUAGE sql AS 'SELECT NULL::text';
    CREATE FUNCTION shadow.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
"""


class Pair(Generic[PoolT, ConnT]):
    """A primary and its standby."""

    def __init__(self, subject: Subject[PoolT, ConnT], cluster: LocalCluster) -> None:
        self._cluster = cluster
        (standby,) = cluster.replicas
        self.primary = Bench(subject, cluster)
        self.standby = Bench(subject, cluster, standby)

    def run(self, main: Coroutine[Any, Any, None], /) -> None:
        self.primary.run(main)

    def booth(self, bench: Bench[PoolT, ConnT]) -> Booth[PoolT, ConnT]:
        if not isinstance(bench.adapter, Reserves):
            pytest.skip("the monitor takes its connection from the adapter's pool")
        return Booth(bench, bench.adapter)

    def tune(self, setting: str | None) -> None:
        """Give the login's sessions a default of their own, on both servers; None: take it away."""
        change = "RESET ALL" if setting is None else f"SET {setting} = {SETTINGS[setting]}"
        self._psql(self._cluster.primary, f"ALTER ROLE {LOGIN} {change}")
        self._cluster.wait_streaming()

    def told(self, recovering: bool) -> tuple[bool | None, ...]:
        """What is true after an answer: PostgreSQL 14 and later say so, to drivers that keep it."""
        is_told = isinstance(self.primary.adapter, TellsRecovery) and self._version() >= 140000
        return (recovering,) if is_told else (recovering, None)

    def repair(self) -> None:
        """One of them is a standby again, whichever was promoted."""
        (other,) = (node for node in self._cluster.nodes if node is not self._cluster.primary)
        if other.role == "primary":
            self._cluster.rejoin(other)

    def _version(self) -> int:
        return int(self._psql(self._cluster.primary, "SHOW server_version_num"))

    def _psql(self, node: Node, sql: str) -> str:
        return self._cluster.psql(node, sql)
