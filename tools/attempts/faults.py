"""What is done to the nodes of a real cluster, so that its writers have to try again."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from pyscopg2.core.wal import parse_lsn
from pyscopg2.testing.cluster import LocalCluster, Node

END_CLIENTS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

END_SENDERS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'walsender'
"""

Fault = Callable[[LocalCluster], Awaitable[None]]
"""When it is over, there is a master, and all nodes are there."""


async def in_thread(verb: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(verb, *args)


async def wait_for_replicas(cluster: LocalCluster, commits: bool) -> None:
    """Whether a commit waits until one replica has it, so that no promotion loses it.

    Not when the cluster is started: its own commits would wait for replicas to come.
    """
    names = "ANY 1 (*)" if commits else ""
    for node in cluster.nodes:
        change = f"ALTER SYSTEM SET synchronous_standby_names = '{names}'"
        await in_thread(cluster.psql, node, change)
        await in_thread(cluster.psql, node, "SELECT pg_reload_conf()")


async def _promote(cluster: LocalCluster) -> None:
    """The replica that has received most: it has all that was acknowledged."""
    received: dict[Node, int] = {}
    for node in cluster.replicas:
        text = await in_thread(cluster.psql, node, "SELECT pg_last_wal_receive_lsn()")
        received[node] = parse_lsn(text)
    await in_thread(cluster.promote, max(received, key=received.__getitem__))


async def kill(cluster: LocalCluster) -> None:
    """The master's machine dies; a replica is promoted two seconds later."""
    old = cluster.primary
    await in_thread(cluster.kill, old)
    await asyncio.sleep(2)
    await _promote(cluster)
    await asyncio.sleep(1)
    await in_thread(cluster.rejoin, old)


async def freeze(cluster: LocalCluster) -> None:
    """The master stops in the middle of its work, is replaced, and comes back as it was."""
    old = cluster.primary
    await in_thread(cluster.freeze, old)
    await asyncio.sleep(2)
    await _promote(cluster)
    await asyncio.sleep(1)
    await in_thread(cluster.thaw, old)
    await asyncio.sleep(1)
    await in_thread(cluster.rejoin, old)


async def switch_over(cluster: LocalCluster) -> None:
    """The master is shut down in good order, and a replica promoted."""
    old = cluster.primary
    await in_thread(cluster.stop, old)
    await _promote(cluster)
    await in_thread(cluster.rejoin, old)


async def restart(cluster: LocalCluster) -> None:
    """The master is shut down in good order, and started again."""
    await in_thread(cluster.stop, cluster.primary)
    await in_thread(cluster.start, cluster.primary)


async def crash(cluster: LocalCluster) -> None:
    """The master dies, is started again, and recovers."""
    await in_thread(cluster.kill, cluster.primary)
    await in_thread(cluster.start, cluster.primary)


async def crash_backends(cluster: LocalCluster) -> None:
    """One of the master's processes dies: the postmaster ends all others, and recovers."""
    walwriter = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
    pid = int(await in_thread(cluster.psql, cluster.primary, walwriter))
    await in_thread(_kill_process, pid)


def _kill_process(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def cut_connections(cluster: LocalCluster) -> None:
    """An administrator ends all connections, again and again."""
    for _ in range(5):
        await in_thread(cluster.psql, cluster.primary, END_CLIENTS)
        await asyncio.sleep(0.3)


async def lose_what_waits(cluster: LocalCluster) -> None:
    """No replica receives anything, so that commits wait, and an administrator ends them: they are
    there, on the master alone. That dies, and a replica is promoted."""
    old = cluster.primary
    replicas = cluster.replicas
    for node in replicas:
        await in_thread(cluster.freeze, node)
    # What was sent already, a frozen one would read when it goes on.
    await in_thread(cluster.psql, old, END_SENDERS)
    await asyncio.sleep(1)
    await in_thread(cluster.psql, old, END_CLIENTS)
    await asyncio.sleep(1)
    await in_thread(cluster.kill, old)
    for node in replicas:
        await in_thread(cluster.thaw, node)
    await _promote(cluster)
    await in_thread(cluster.rejoin, old)


FAULTS: dict[str, Fault] = {
    "killed, promoted": kill,
    "frozen, promoted": freeze,
    "switched over": switch_over,
    "restarted": restart,
    "killed, started": crash,
    "a process killed": crash_backends,
    "connections ended": cut_connections,
}

FOR_FEW: dict[str, Fault] = {"unreplicated commits ended": lose_what_waits}
"""For no more writers than the pool has slots: all others of these wait in COMMITs, too, and nobody
could ask what became of his."""
