"""Clusters that a test has broken are made well again."""

import time

from pyscopg2.testing.bench import PATIENCE, SOON
from pyscopg2.testing.cluster import ClusterError, LocalCluster, Node

__all__ = ("heal", "wait_for_no_backends")


def heal(cluster: LocalCluster) -> None:
    """Bring back a primary, whichever node it is, and two replicas that stream from it."""
    for node in cluster.nodes:
        cluster.thaw(node)
    primary = cluster.primary
    if not primary.is_running:
        cluster.start(primary)
    cluster.psql(primary, "ALTER SYSTEM RESET ALL; SELECT pg_reload_conf()")
    for node in cluster.nodes:
        if node is not primary and not _follows(cluster, node):
            cluster.rejoin(node)


def _follows(cluster: LocalCluster, node: Node) -> bool:
    if node.role == "primary" or not node.is_running:
        return False
    try:
        cluster.wait_streaming(node, timeout=SOON)
    except ClusterError:
        return False
    return True


def wait_for_no_backends(cluster: LocalCluster, node: Node) -> None:
    """All clients have gone but the servers' own; the name of one that is left is its test's."""
    left = (
        "SELECT string_agg(DISTINCT application_name, ', ') FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    until = time.monotonic() + PATIENCE
    while names := cluster.psql(node, left):
        assert time.monotonic() < until, f"connections are left on {node!r}: {names}"
