"""A primary and its replicas, from their start to their end."""

import contextlib
import os
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, final

from pyscopg2.testing.cluster.copies import Copies
from pyscopg2.testing.cluster.deadline import Deadline
from pyscopg2.testing.cluster.node import DATABASE, USER, Node
from pyscopg2.testing.cluster.ports import Ports
from pyscopg2.testing.cluster.programs import Programs
from pyscopg2.testing.cluster.replication import FOLLOW_TIMEOUT, Replication
from pyscopg2.testing.cluster.servers import Servers, StopMode
from pyscopg2.testing.cluster.site import Site
from pyscopg2.testing.postgres import AccountMode, ClusterError, PostgresBinaries

__all__ = ("LocalCluster",)


@final
class LocalCluster:
    """A primary and streaming replicas on this machine, to be killed, frozen and promoted.

    Use it in a ``with`` block. However the program ends, nothing stays behind: a small guardian
    process kills the servers and removes their files, also after a SIGKILL.

    - `replicas`: how many beside the primary.
    - `settings`: further lines for each ``postgresql.conf``; they win over the cluster's own.
      What they do to sessions is done to those who use the servers, `psql` included, and not to
      the cluster's own: it promotes and copies whatever they are.
    - `directory`: an existing folder; the cluster makes a temporary one inside. Default: the
      system's folder for temporary files.
    - `timeout`: seconds that any one verb may take before it raises `ClusterError`.
    - `binaries`: the PostgreSQL to run; default `PostgresBinaries.find`.
    - `account`: how PostgreSQL is run, which it refuses to be as root; by default what works,
      see `Account`.

    Its methods block. An asyncio program calls them by ``asyncio.to_thread``, one at a time.
    Every verb raises `ClusterError` if the cluster is not started, if a program or query that it
    needs fails, or if it is out of time, and `ValueError` for a node of another cluster.
    """

    def __init__(
        self,
        replicas: int = 2,
        *,
        settings: Mapping[str, str] | None = None,
        directory: Path | None = None,
        timeout: float = 30.0,
        binaries: PostgresBinaries | None = None,
        account: AccountMode | None = None,
    ) -> None:
        if replicas < 0:
            raise ValueError(f"replicas must not be negative, not {replicas}")
        self._replicas_wanted = replicas
        self._settings = dict(settings or {})
        self._directory = directory
        self._timeout = timeout
        self._binaries_wanted = binaries
        self._account_wanted: AccountMode | None = account
        self._password = secrets.token_hex(12)
        self._ports = Ports()
        self._nodes: list[Node] = []
        self._primary: Node | None = None
        self._tools: _Tools | None = None
        self._owner = os.getpid()

    def __repr__(self) -> str:
        return f"<LocalCluster {' '.join(map(repr, self._nodes)) or 'not started'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # What there is

    @property
    def dsn(self) -> str:
        """One URI with all hosts in the order of `nodes`, as the superuser, password included."""
        hosts = ",".join(node.address for node in self.nodes)
        return f"postgresql://{USER}:{self._password}@{hosts}/{DATABASE}"

    @property
    def user(self) -> str:
        """The superuser: ``postgres``."""
        return USER

    @property
    def password(self) -> str:
        """The superuser's password, made up for this cluster. Servers ask for it by SCRAM."""
        return self._password

    @property
    def database(self) -> str:
        """The database in the DSN: ``postgres``."""
        return DATABASE

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, in the order of the DSN, whatever their role and state."""
        self._now()
        return tuple(self._nodes)

    @property
    def primary(self) -> Node:
        """The node that replicas follow: the first one, or the last that was promoted.

        This is what the cluster was told, not what the servers say: a killed primary stays the
        primary until another node is promoted.
        """
        self._now()
        assert self._primary is not None
        return self._primary

    @property
    def replicas(self) -> tuple[Node, ...]:
        """The nodes that are replicas, running or not, in the order of the DSN.

        A former primary is none until `rejoin`.
        """
        primary = self.primary
        return tuple(node for node in self.nodes if node is not primary and node.role == "replica")

    # The whole

    def start(self, node: Node | None = None) -> None:
        """Start the cluster or, given a node, that stopped or killed one.

        Returns when the servers accept connections and, for the cluster, all replicas stream.
        A node comes back as what it was: a former primary as a primary, beside the new one
        (`rejoin` is what makes it a replica). What a failed start began is removed.
        """
        if node is None:
            self._start_cluster()
            return
        self._own(node)
        if node.is_running:
            raise ClusterError(f"{node!r} runs already")
        # Orphans of a postmaster that died alone would be in the way.
        self.kill(node)
        self._now().servers.launch(node, Deadline(self._timeout))

    def close(self) -> None:
        """Kill all servers and remove all files. Does nothing if the cluster is not started.

        Raises `ClusterError` if something stays behind.
        """
        if self._tools is None or os.getpid() != self._owner:
            # A forked child has a copy of this object; the cluster is its parent's.
            return
        try:
            self._tools.site.close()
        finally:
            self._ports.release()
        for node in self._nodes:
            node.wait_exit(self._timeout)
        self._tools = None
        self._nodes.clear()
        self._primary = None

    def add_replica(self) -> Node:
        """Add one more replica; returns it when it streams. It stands last in the DSN."""
        self._now()
        self._need_running(self.primary)
        (node,) = self._clone(1, Deadline(self._timeout))
        return node

    # One node

    def kill(self, node: Node) -> None:
        """Kill all of a node's processes at once, frozen or not.

        As if its machine died and the network refused further connections: clients get a reset
        and then a refusal. Returns when the processes are gone. Does nothing if they are.
        """
        self._own(node)
        self._now().servers.kill(node, self._timeout)

    def freeze(self, node: Node) -> None:
        """Stop all of a node's processes (SIGSTOP); returns when none of them runs.

        The kernel still accepts connections on its port and takes what is sent, but nobody
        answers. Raises `ClusterError` if the node does not run. Does nothing if it is frozen.
        """
        self._own(node)
        if not node.is_running:
            raise ClusterError(f"{node!r} does not run")
        # First the flag: if Ctrl-C comes in between, `thaw` must know that there is work.
        node.became_frozen(True)
        self._now().site.freeze(node)

    def thaw(self, node: Node) -> None:
        """Let a frozen node go on. Does nothing if it is not frozen."""
        self._own(node)
        if node.is_frozen:
            self._now().site.thaw(node)
            node.became_frozen(False)

    def stop(self, node: Node, mode: StopMode = "fast", *, timeout: float | None = None) -> None:
        """Shut a node down as ``pg_ctl stop`` does; returns when it is down.

        ``smart`` waits until all clients are gone, ``fast`` disconnects them, ``immediate``
        leaves recovery to the next start. Raises `ClusterError` if the node does not run, is
        frozen, or is not down after `timeout` seconds; it then still shuts down.
        """
        self._own(node)
        self._need_running(node)
        self._now().servers.stop(node, mode, self._deadline(timeout).timeout)

    def promote(
        self,
        node: Node,
        *,
        wait: bool = True,
        follow: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Make a replica the primary. The old one is left as it is, running or not.

        With `wait`, returns when the node accepts writes; else the promotion is only sent.

        With `follow`, the other replicas follow the new primary: those that run stream from it
        on return (with `wait`), a frozen one will when thawed, a stopped one when started. One
        that had received more than the node had when it was promoted can't follow: with `wait`
        it is made anew from the new primary, a frozen or stopped one needs `rejoin`.

        Raises `ClusterError` if the node does not run, is frozen, or is no replica.
        """
        self._own(node)
        self._need_running(node)
        if node is self._primary or node.role != "replica":
            raise ClusterError(f"{node!r} is no replica")
        deadline = self._deadline(timeout)
        tools = self._now()
        tools.programs.query(node, "SELECT pg_promote(false)", deadline.left)
        followers = [other for other in self.replicas if other is not node]
        self._primary = node
        if follow:
            for follower in followers:
                tools.site.configure(follower, upstream=node)
                if follower.is_running:
                    follower.send(signal.SIGHUP)
        if not wait:
            return
        while tools.programs.query(node, "SELECT pg_is_in_recovery()", deadline.left) != "f":
            deadline.pause(f"{node!r} was not promoted", node)
        if follow:
            for follower in followers:
                if self._can_answer(follower) and (
                    tools.replication.is_ahead(follower, node, deadline)
                    or not tools.replication.streams(follower, node, deadline)
                ):
                    tools.copies.rebuild(follower, node, deadline)

    def rejoin(
        self, node: Node, primary: Node | None = None, *, timeout: float | None = None
    ) -> None:
        """Make a node, whatever its role and state, a replica of `primary`.

        `primary` is by default the cluster's; another one becomes the cluster's. A running node
        is stopped first, a frozen one killed. What the node wrote that `primary` does not have
        is lost: ``pg_rewind`` takes it back and, where it can't, the node is made anew by
        ``pg_basebackup``. Returns when the node streams.

        Raises `ClusterError` if `primary` does not run, is frozen, or is a replica.
        """
        self._own(node)
        upstream = self.primary if primary is None else primary
        self._own(upstream)
        if upstream is node:
            raise ClusterError(f"{node!r} is the primary: it can't follow itself")
        self._need_running(upstream)
        if upstream.role != "primary":
            raise ClusterError(f"{upstream!r} is no primary")
        deadline = self._deadline(timeout)
        tools = self._now()
        self._primary = upstream
        if self._can_answer(node):
            with contextlib.suppress(ClusterError):
                tools.servers.stop(node, "fast", deadline.sooner(FOLLOW_TIMEOUT).left)
        self.kill(node)
        if node.role == "replica" or tools.copies.rewind(node, upstream, deadline):
            tools.site.configure(node, upstream)
            with contextlib.suppress(ClusterError):
                tools.servers.launch(node, deadline.sooner(FOLLOW_TIMEOUT))
                if tools.replication.streams(node, upstream, deadline):
                    return
        tools.copies.rebuild(node, upstream, deadline)

    # Asking

    def psql(
        self,
        node: Node,
        sql: str,
        *,
        database: str = DATABASE,
        user: str = USER,
        password: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """Run `sql` on a node by ``psql`` and return what it prints, stripped.

        One line a row, columns joined by ``|``, booleans as ``t`` and ``f``, NULL as nothing.
        Several statements are several transactions; the first error ends the run. `password`
        is by default the superuser's.

        Raises `ClusterError` with what ``psql`` says if a statement or the connection fails, or
        if there is no answer after `timeout` seconds: on a frozen node there is none.
        """
        self._own(node)
        return self._now().programs.query(
            node,
            sql,
            self._deadline(timeout).timeout,
            PGDATABASE=database,
            PGUSER=user,
            PGPASSWORD=self._password if password is None else password,
            PGOPTIONS="",
        )

    def wait_streaming(self, *nodes: Node, timeout: float | None = None) -> None:
        """Wait until replicas stream from the primary and have replayed all it has written.

        What was committed on the primary before the call can be read on them afterwards. By
        default all replicas that run and are not frozen. Raises `ClusterError` if the primary
        or one of `nodes` is down or frozen, or after `timeout` seconds.
        """
        deadline = self._deadline(timeout)
        primary = self.primary
        for node in (primary, *nodes):
            self._own(node)
            self._need_running(node)
        for node in nodes or filter(self._can_answer, self.replicas):
            self._now().replication.await_streaming(node, primary, deadline)

    # What the verbs have in common

    def _start_cluster(self) -> None:
        if self._tools is not None:
            raise ClusterError("the cluster is started already")
        self._owner = os.getpid()
        site = Site.open(
            self._directory,
            self._binaries_wanted,
            self._account_wanted,
            self._password,
            self._settings,
        )
        self._tools = _Tools(site, self._ports)
        try:
            deadline = Deadline(self._timeout)
            self._primary = self._tools.copies.create_primary(deadline)
            self._nodes.append(self._primary)
            self._clone(self._replicas_wanted, deadline)
        except BaseException:
            with contextlib.suppress(ClusterError):
                self.close()
            raise

    def _clone(self, count: int, deadline: Deadline) -> list[Node]:
        first = len(self._nodes) + 1
        nodes = self._now().copies.clone(range(first, first + count), self.primary, deadline)
        self._nodes += nodes
        return nodes

    def _now(self) -> "_Tools":
        if self._tools is None:
            raise ClusterError("the cluster is not started")
        return self._tools

    def _own(self, node: Node) -> None:
        if node not in self.nodes:
            raise ValueError(f"{node!r} is no node of this cluster")

    def _can_answer(self, node: Node) -> bool:
        return node.is_running and not node.is_frozen

    def _need_running(self, node: Node) -> None:
        if not self._can_answer(node):
            raise ClusterError(f"{node!r} {'is frozen' if node.is_running else 'does not run'}")

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)


class _Tools:
    """What a started cluster does its work with."""

    def __init__(self, site: Site, ports: Ports) -> None:
        self.site = site
        self.programs = Programs(site)
        self.servers = Servers(site, self.programs, ports)
        self.replication = Replication(self.programs)
        self.copies = Copies(site, self.programs, ports, self.servers, self.replication)
