"""How far a cluster's replicas are."""

import time

from pyscopg2.testing.cluster.deadline import PAUSE, Deadline
from pyscopg2.testing.cluster.node import Node
from pyscopg2.testing.cluster.programs import Programs
from pyscopg2.testing.postgres import ClusterError

__all__ = ("FOLLOW_TIMEOUT", "Replication")

FOLLOW_TIMEOUT = 5.0
"""Seconds: long enough for a replica that can follow at all, on a busy machine."""


class Replication:
    """What the servers say of it, asked in the cluster's own sessions."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def await_streaming(self, node: Node, upstream: Node, deadline: Deadline) -> None:
        """As `streams`, for as long as there is time; it is an error if the replica does not."""
        if not self.streams(node, upstream, deadline, patience=deadline.left):
            raise ClusterError(
                f"{node!r} does not stream from {upstream!r} after {deadline.timeout:g} s\n"
                f"{node.log_tail()}\n{upstream.log_tail()}"
            )

    def streams(
        self, node: Node, upstream: Node, deadline: Deadline, patience: float = FOLLOW_TIMEOUT
    ) -> bool:
        """Wait until a replica has replayed what `upstream` has written; whether it did."""
        deadline = deadline.sooner(patience)
        upstream_says = (
            "SELECT pg_current_wal_flush_lsn(), EXISTS (SELECT FROM pg_stat_replication "
            f"WHERE state = 'streaming' AND application_name = '{node.name}')"
        )
        node_says = (
            "SELECT coalesce(pg_last_wal_replay_lsn() >= '{}', false) AND EXISTS (SELECT FROM "
            f"pg_stat_wal_receiver WHERE status = 'streaming' AND sender_port = {upstream.port})"
        )
        goal = None
        query = self._programs.query
        while not deadline.passed:
            try:
                lsn, sends = query(upstream, upstream_says, deadline.left).split("|")
                goal = goal or lsn
                if sends == "t" and query(node, node_says.format(goal), deadline.left) == "t":
                    return True
            except ClusterError:
                # Out of time in the middle of a query.
                if not deadline.passed:
                    raise
            time.sleep(PAUSE)
        return False

    def is_ahead(self, follower: Node, node: Node, deadline: Deadline) -> bool:
        """Whether a replica has replayed what `node`, just promoted, has never seen.

        One that has gone over to the new timeline already is past the branch point, too, and may
        be: it was not ahead, or it could not have gone over.
        """
        says = (
            "SELECT pg_last_wal_replay_lsn(),"
            " ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"
        )
        branch, timeline = self._programs.query(node, says, deadline.left).split("|")
        ahead = (
            f"SELECT pg_last_wal_replay_lsn() > '{branch}' AND NOT EXISTS"
            f" (SELECT FROM pg_stat_wal_receiver WHERE received_tli >= {timeline})"
        )
        return self._programs.query(follower, ahead, deadline.left) == "t"
