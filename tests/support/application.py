"""Connections under test, which servers know by their application_name."""

import asyncio

import psutil
from tests.support.waiting import eventually

from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.testing.cluster import LocalCluster, Node


class Application:
    """All connections with one application_name, and no other's."""

    def __init__(self, name: str) -> None:
        self.name = name

    def target(self, node: Node, params: str = "") -> Target:
        """``params``: further ones, as they stand in a DSN, each with its ``&``."""
        (target,) = parse_dsn(f"{node.dsn}?application_name={self.name}{params}")
        return target

    def backends(self, cluster: LocalCluster, node: Node, where: str = "true") -> int:
        """How many connections the server has."""
        sql = f"SELECT count(*) FROM pg_stat_activity WHERE {self._ours} AND ({where})"
        return int(cluster.psql(node, sql))

    def end_backends(self, cluster: LocalCluster, node: Node) -> None:
        """As an administrator, or a restart, would; returns when they have ended."""
        sql = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {self._ours}"
        cluster.psql(node, sql)

    async def no_backends(self, cluster: LocalCluster, node: Node) -> None:
        """Wait until the server has none of these connections any more."""

        async def none() -> bool:
            return await asyncio.to_thread(self.backends, cluster, node) == 0

        await eventually(none, f"no backend is left on {node!r}")

    @property
    def _ours(self) -> str:
        return f"application_name = '{self.name}'"


def sockets(node: Node, status: str | None = None) -> int:
    """How many connections to the server this process has."""
    return sum(
        bool(each.raddr) and each.raddr.port == node.port and status in (None, each.status)
        for each in psutil.Process().net_connections("tcp")
    )
