"""What is done to the nodes of a real cluster, so that its replicas lag, or are cut off."""

import asyncio

from pyscopg2.testing.cluster import LocalCluster, Node

NOWHERE = "host=127.0.0.1 port=1"
"""A standby that is to receive from there receives nothing."""


class Replication:
    """How the standbys of one cluster follow."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    async def delay(self, node: Node, seconds: float) -> None:
        """Have it apply each commit so much later; 0: at once."""
        value = f"{seconds * 1000:.0f}ms" if seconds else None
        await self._set(node, "recovery_min_apply_delay", value)

    async def pause(self, node: Node) -> None:
        await self._run(node, "SELECT pg_wal_replay_pause()")

    async def resume(self, node: Node) -> None:
        await self._run(node, "SELECT pg_wal_replay_resume()")

    async def cut(self, node: Node) -> None:
        """It receives nothing more."""
        await self._set(node, "primary_conninfo", NOWHERE)

    async def join(self, node: Node) -> None:
        """It receives from its primary again."""
        await self._set(node, "primary_conninfo", None)

    async def switch_segment(self) -> None:
        await self._run(self._cluster.primary, "SELECT pg_switch_wal()")

    async def checkpoint(self) -> None:
        await self._run(self._cluster.primary, "CHECKPOINT")

    async def _set(self, node: Node, name: str, value: str | None) -> None:
        """None: what the cluster has set."""
        change = f"RESET {name}" if value is None else f"SET {name} = '{value}'"
        await self._run(node, f"ALTER SYSTEM {change}")
        await self._run(node, "SELECT pg_reload_conf()")

    async def _run(self, node: Node, sql: str) -> None:
        await asyncio.to_thread(self._cluster.psql, node, sql)
