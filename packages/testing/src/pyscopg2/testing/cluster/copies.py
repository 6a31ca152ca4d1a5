"""How a cluster's data folders are made: the first one, its copies, and those made anew."""

import contextlib
import shutil
from collections.abc import Sequence

from pyscopg2.testing.cluster.deadline import Deadline
from pyscopg2.testing.cluster.node import DATABASE, USER, Node
from pyscopg2.testing.cluster.ports import HOST, Ports
from pyscopg2.testing.cluster.programs import Programs
from pyscopg2.testing.cluster.replication import Replication
from pyscopg2.testing.cluster.servers import Servers
from pyscopg2.testing.cluster.site import Site
from pyscopg2.testing.postgres import ClusterError

__all__ = ("Copies",)


class Copies:
    """``initdb``, ``pg_basebackup`` and ``pg_rewind``."""

    def __init__(
        self,
        site: Site,
        programs: Programs,
        ports: Ports,
        servers: Servers,
        replication: Replication,
    ) -> None:
        self._site = site
        self._programs = programs
        self._ports = ports
        self._servers = servers
        self._replication = replication

    def create_primary(self, deadline: Deadline) -> Node:
        """Make the first node; returns it when it accepts connections."""
        site = self._site
        node = site.new_node(1, self._ports.take())
        password_file = node.folder / "password"
        site.put(password_file, site.password)
        command = ["initdb", "-D", "data", "-U", USER, f"--pwfile={password_file.name}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        # Small WAL segments: most of the time goes into writing files, and these are the largest.
        command += ["--wal-segsize=1"]
        if site.binaries.major >= 16:
            command += ["-c", "dynamic_shared_memory_type=mmap"]
        self._run(node, command, "initdb", deadline)
        password_file.unlink()
        # The settings stand beside the data folder, so that neither pg_basebackup nor pg_rewind
        # carries one node's to another. Both copy this line, which is right for every node.
        site.put(node.data_directory / "postgresql.conf", "include '../server.conf'\n")
        site.put(
            node.data_directory / "pg_hba.conf",
            f"host all all {HOST}/32 scram-sha-256\nhost replication all {HOST}/32 scram-sha-256\n",
        )
        site.configure(node, upstream=None)
        self._servers.spawn(node)
        self._servers.await_first_ready(node, None, deadline)
        return node

    def clone(self, numbers: range, primary: Node, deadline: Deadline) -> list[Node]:
        """Make replicas of the primary, side by side; returns them when they stream."""
        nodes = [self._site.new_node(number, self._ports.take()) for number in numbers]
        try:
            self._copy_data(nodes, primary, deadline)
            for node in nodes:
                self._servers.spawn(node)
            for node in nodes:
                self._servers.await_first_ready(node, primary, deadline)
            for node in nodes:
                self._replication.await_streaming(node, primary, deadline)
        except BaseException:
            # The cluster may live on without them.
            for node in nodes:
                with contextlib.suppress(ClusterError):
                    self._site.kill(node)
                shutil.rmtree(node.folder, ignore_errors=True)
            raise
        return nodes

    def rebuild(self, node: Node, upstream: Node, deadline: Deadline) -> None:
        """Make a node anew, in whatever state it is, from `upstream`; returns when it streams."""
        self._servers.kill(node, deadline.left)
        shutil.rmtree(node.data_directory)
        self._copy_data([node], upstream, deadline)
        self._servers.launch(node, deadline)
        self._replication.await_streaming(node, upstream, deadline)

    def rewind(self, node: Node, upstream: Node, deadline: Deadline) -> bool:
        """Take a former primary back to where `upstream` branched off; whether that worked."""
        # Until the first checkpoint after a promotion, the control file still names the old
        # timeline, and pg_rewind would see nothing to do.
        self._programs.query(upstream, "CHECKPOINT", deadline.left)
        source = f"host={upstream.host} port={upstream.port} user={USER} dbname={DATABASE}"
        command = ["pg_rewind", "-D", "data", f"--source-server={source}", "--no-sync"]
        try:
            self._run(node, command, "pg_rewind", deadline)
        except ClusterError:
            return False
        return True

    def _copy_data(self, nodes: Sequence[Node], upstream: Node, deadline: Deadline) -> None:
        command = ["pg_basebackup", "-D", "data", "--checkpoint=fast", "--no-sync", "-X", "stream"]
        copies = [(node, self._programs.start(node, command, upstream)) for node in nodes]
        for node, copy in copies:
            self._programs.finish(copy, deadline, f"pg_basebackup from {upstream!r}", node)
            self._site.configure(node, upstream)

    def _run(self, node: Node, command: Sequence[str], what: str, deadline: Deadline) -> None:
        self._programs.finish(self._programs.start(node, command), deadline, what, node)
