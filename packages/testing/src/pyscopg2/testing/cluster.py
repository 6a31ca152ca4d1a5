"""A real PostgreSQL cluster on this machine: a primary and its streaming replicas."""

import contextlib
import errno
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self, final

from pyscopg2.testing.guardian import Guardian, GuardianError
from pyscopg2.testing.postgres import (
    Account,
    AccountMode,
    ClusterError,
    PostgresBinaries,
    environment,
    temporary_folder,
)

__all__ = ["ClusterError", "LocalCluster", "Node", "Role", "StopMode"]

Role = Literal["primary", "replica"]
StopMode = Literal["smart", "fast", "immediate"]

_HOST = "127.0.0.1"
_USER = "postgres"
_DATABASE = "postgres"
# Below the range from which the kernel takes the ports of outgoing connections: who polls a
# stopped port inside that range can end up connected to itself.
_PORTS = range(20000, 32768)
_PAUSE = 0.01
_LOG_TAIL = 3000
# Long enough for a replica that can follow at all, on a busy machine.
_FOLLOW_TIMEOUT = 5.0
_STOP_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class _Ports:
    """Free ports of this machine, each taken by one cluster only.

    A port is free to look at until its server listens, so two test runs could choose the same
    one. Where the system has abstract sockets (Linux), a name stands for each port that is
    taken, and ends with the process that holds it.
    """

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        # Not the shared generator: a test suite that seeds it wants its own numbers from it.
        self._random = random.SystemRandom()

    def take(self) -> int:
        for port in self._random.sample(_PORTS, len(_PORTS)):
            if self._reserve(port):
                return port
        raise ClusterError(f"no free port in {_PORTS.start}-{_PORTS.stop - 1}")

    def release(self) -> None:
        self._held.close()

    def _reserve(self, port: int) -> bool:
        with contextlib.ExitStack() as held:
            try:
                if sys.platform == "linux":
                    name = held.enter_context(socket.socket(socket.AF_UNIX))
                    name.bind(f"\0pyscopg2-testing-port-{port}")
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((_HOST, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
                raise
            self._held.enter_context(held.pop_all())
        return True


class _Deadline:
    """A moment that all the steps of a verb share."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._at = time.monotonic() + timeout

    @property
    def left(self) -> float:
        """Seconds, at least 0."""
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.left == 0

    def sooner(self, timeout: float) -> "_Deadline":
        return _Deadline(min(timeout, self.left))


@final
class Node:
    """One server of a `LocalCluster`. Made by the cluster, which also has the verbs for it."""

    def __init__(self, name: str, port: int, folder: Path, password: str) -> None:
        self._name = name
        self._port = port
        self._folder = folder
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        self._is_frozen = False

    def __repr__(self) -> str:
        state = "frozen" if self.is_frozen else "running" if self.is_running else "down"
        return f"<Node {self.name} {self.address} {self.role} {state}>"

    @property
    def name(self) -> str:
        """``node1``, ``node2`` and so on: also its ``cluster_name`` and ``application_name``."""
        return self._name

    @property
    def host(self) -> str:
        """The host to connect to: always ``127.0.0.1``."""
        return _HOST

    @property
    def port(self) -> int:
        """The port to connect to: the same for the node's whole life."""
        return self._port

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    @property
    def dsn(self) -> str:
        """A URI for this server alone, as the superuser, password included."""
        return f"postgresql://{_USER}:{self._password}@{self.address}/{_DATABASE}"

    @property
    def folder(self) -> Path:
        """The node's own folder; it ends with the cluster."""
        return self._folder

    @property
    def data_directory(self) -> Path:
        """The server's data folder."""
        return self._folder / "data"

    @property
    def log_file(self) -> Path:
        """The server's log, of all its starts."""
        return self._folder / "log"

    @property
    def settings_file(self) -> Path:
        """The server's settings; the cluster writes it anew when the node's upstream changes."""
        return self._folder / "server.conf"

    @property
    def role(self) -> Role:
        """What the server is, or will be when started, as its data folder says.

        Two nodes are primary after one was promoted while the other was there, or down, and
        until `LocalCluster.rejoin`. A promotion counts when the server has finished it.
        """
        return "replica" if self.standby_file.exists() else "primary"

    @property
    def standby_file(self) -> Path:
        """While this file exists, the server is a replica."""
        return self.data_directory / "standby.signal"

    @property
    def is_running(self) -> bool:
        """Whether its postmaster lives, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def is_frozen(self) -> bool:
        """Whether `LocalCluster.freeze` stopped it."""
        return self._is_frozen and self.is_running

    @property
    def is_ready(self) -> bool:
        """Whether the server has said that it accepts connections."""
        if self._process is None or not self.is_running:
            return False
        try:
            lines = (self.data_directory / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def log_tail(self) -> str:
        """The end of the server's log, with the node's name above it."""
        try:
            text = self.log_file.read_text(errors="replace")
        except FileNotFoundError:
            text = ""
        return f"--- log of {self!r}:\n{text[-_LOG_TAIL:].rstrip()}"

    def took_process(self, process: subprocess.Popen[bytes]) -> None:
        """The cluster started this postmaster for the node."""
        self._process = process
        self._is_frozen = False

    def took_port(self, port: int) -> None:
        """The cluster chose another port, because somebody else sits on the first one."""
        self._port = port

    def became_frozen(self, is_frozen: bool) -> None:
        """The cluster stopped the node's processes, or let them go on."""
        self._is_frozen = is_frozen

    def send(self, number: signal.Signals) -> None:
        """Signal the postmaster, if it lives."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait_exit(self, timeout: float) -> int | None:
        """The postmaster's exit code, or `None` if it still runs after `timeout` seconds."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None


@final
class LocalCluster:
    """A primary and streaming replicas on this machine, to be killed, frozen and promoted.

    Use it in a ``with`` block. However the program ends, nothing stays behind: a small guardian
    process kills the servers and removes their files, also after a SIGKILL.

    - `replicas`: how many beside the primary.
    - `settings`: further lines for each ``postgresql.conf``; they win over the cluster's own.
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
        self._ports = _Ports()
        self._nodes: list[Node] = []
        self._primary: Node | None = None
        self._running: _Running | None = None
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
        return f"postgresql://{_USER}:{self._password}@{hosts}/{_DATABASE}"

    @property
    def user(self) -> str:
        """The superuser: ``postgres``."""
        return _USER

    @property
    def password(self) -> str:
        """The superuser's password, made up for this cluster. Servers ask for it by SCRAM."""
        return self._password

    @property
    def database(self) -> str:
        """The database in the DSN: ``postgres``."""
        return _DATABASE

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
        self._launch(node, _Deadline(self._timeout))

    def close(self) -> None:
        """Kill all servers and remove all files. Does nothing if the cluster is not started.

        Raises `ClusterError` if something stays behind.
        """
        running = self._running
        if running is None or os.getpid() != self._owner:
            # A forked child has a copy of this object; the cluster is its parent's.
            return
        try:
            running.guardian.close()
        except GuardianError as error:
            raise ClusterError(f"the cluster left something behind: {error}") from error
        finally:
            self._ports.release()
        for node in self._nodes:
            node.wait_exit(self._timeout)
        self._running = None
        self._nodes.clear()
        self._primary = None

    def add_replica(self) -> Node:
        """Add one more replica; returns it when it streams. It stands last in the DSN."""
        self._now()
        self._need_running(self.primary)
        (node,) = self._clone(1, _Deadline(self._timeout))
        return node

    # One node

    def kill(self, node: Node) -> None:
        """Kill all of a node's processes at once, frozen or not.

        As if its machine died and the network refused further connections: clients get a reset
        and then a refusal. Returns when the processes are gone. Does nothing if they are.
        """
        self._own(node)
        with self._guarding() as guardian:
            guardian.kill(node.folder)
        node.wait_exit(self._timeout)

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
        with self._guarding() as guardian:
            guardian.freeze(node.folder)

    def thaw(self, node: Node) -> None:
        """Let a frozen node go on. Does nothing if it is not frozen."""
        self._own(node)
        if node.is_frozen:
            with self._guarding() as guardian:
                guardian.thaw(node.folder)
            node.became_frozen(False)

    def stop(self, node: Node, mode: StopMode = "fast", *, timeout: float | None = None) -> None:
        """Shut a node down as ``pg_ctl stop`` does; returns when it is down.

        ``smart`` waits until all clients are gone, ``fast`` disconnects them, ``immediate``
        leaves recovery to the next start. Raises `ClusterError` if the node does not run, is
        frozen, or is not down after `timeout` seconds; it then still shuts down.
        """
        self._own(node)
        self._need_running(node)
        self._clean_stop(node, mode, self._timeout if timeout is None else timeout)

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
        self._query(node, "SELECT pg_promote(false)", deadline.left)
        followers = [other for other in self.replicas if other is not node]
        self._primary = node
        if follow:
            for follower in followers:
                self._write_settings(follower, upstream=node)
                if follower.is_running:
                    follower.send(signal.SIGHUP)
        if not wait:
            return
        while self._query(node, "SELECT pg_is_in_recovery()", deadline.left) != "f":
            self._pause(deadline, f"{node!r} was not promoted", node)
        if follow:
            for follower in followers:
                if self._can_answer(follower) and (
                    self._is_ahead(follower, node, deadline)
                    or not self._streams(follower, node, deadline)
                ):
                    self._rebuild(follower, node, deadline)

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
        self._primary = upstream
        if self._can_answer(node):
            with contextlib.suppress(ClusterError):
                self._clean_stop(node, "fast", deadline.sooner(_FOLLOW_TIMEOUT).left)
        self.kill(node)
        if node.role == "replica" or self._rewind(node, upstream, deadline):
            self._write_settings(node, upstream=upstream)
            with contextlib.suppress(ClusterError):
                self._launch(node, deadline.sooner(_FOLLOW_TIMEOUT))
                if self._streams(node, upstream, deadline):
                    return
        self._rebuild(node, upstream, deadline)

    # Asking

    def psql(
        self,
        node: Node,
        sql: str,
        *,
        database: str = _DATABASE,
        user: str = _USER,
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
        return self._query(
            node,
            sql,
            self._timeout if timeout is None else timeout,
            PGDATABASE=database,
            PGUSER=user,
            PGPASSWORD=self._password if password is None else password,
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
            if not self._streams(node, primary, deadline, patience=deadline.left):
                raise ClusterError(
                    f"{node!r} does not stream from {primary!r} after {deadline.timeout:g} s\n"
                    f"{node.log_tail()}\n{primary.log_tail()}"
                )

    # How it is done

    def _now(self) -> "_Running":
        if self._running is None:
            raise ClusterError("the cluster is not started")
        return self._running

    def _own(self, node: Node) -> None:
        if node not in self.nodes:
            raise ValueError(f"{node!r} is no node of this cluster")

    def _can_answer(self, node: Node) -> bool:
        return node.is_running and not node.is_frozen

    def _need_running(self, node: Node) -> None:
        if not self._can_answer(node):
            raise ClusterError(f"{node!r} {'is frozen' if node.is_running else 'does not run'}")

    def _deadline(self, timeout: float | None) -> _Deadline:
        return _Deadline(self._timeout if timeout is None else timeout)

    def _pause(self, deadline: _Deadline, what: str, node: Node) -> None:
        if deadline.passed:
            raise ClusterError(f"{what} after {deadline.timeout:g} s\n{node.log_tail()}")
        time.sleep(_PAUSE)

    def _query(self, node: Node, sql: str, timeout: float, **variables: str) -> str:
        running = self._now()
        login = {"PGDATABASE": _DATABASE, "PGUSER": _USER, "PGPASSWORD": self._password}
        process = running.account.spawn(
            [running.binaries.program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"],
            # Inside the cluster's folder: it ends with the cluster.
            cwd=running.root,
            env=environment(
                HOME=str(running.root),
                PGHOST=node.host,
                PGPORT=str(node.port),
                **(login | variables),
            ),
            stdin=subprocess.PIPE,
        )
        return _finish(process, timeout, f"psql on {node!r}", sql.encode()).strip()

    @contextlib.contextmanager
    def _guarding(self) -> Generator[Guardian, None, None]:
        try:
            yield self._now().guardian
        except GuardianError as error:
            raise ClusterError(str(error)) from error

    def _start_cluster(self) -> None:
        if self._running is not None:
            raise ClusterError("the cluster is started already")
        binaries = self._binaries_wanted or PostgresBinaries.find()
        account = Account.choose(self._account_wanted)
        parent = temporary_folder(account, self._directory)
        self._owner = os.getpid()
        try:
            other = (account.uid, account.gid) if account.is_another_user else (None, None)
            guardian = Guardian(parent, uid=other[0], gid=other[1])
        except GuardianError as error:
            raise ClusterError(str(error)) from error
        self._running = _Running(guardian, account, binaries)
        try:
            deadline = _Deadline(self._timeout)
            if not account.can_run(binaries):
                self._running.binaries = binaries.copy_to(guardian.root / "binaries")
                account.adopt(guardian.root / "binaries")
            self._primary = self._create_primary(deadline)
            self._clone(self._replicas_wanted, deadline)
        except BaseException:
            with contextlib.suppress(ClusterError):
                self.close()
            raise

    def _create_primary(self, deadline: _Deadline) -> Node:
        node = self._new_node(1)
        password_file = node.folder / "password"
        self._put(password_file, self._password)
        command = ["initdb", "-D", "data", "-U", _USER, f"--pwfile={password_file.name}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        # Small WAL segments: most of the time goes into writing files, and these are the largest.
        command += ["--wal-segsize=1"]
        if self._now().binaries.major >= 16:
            command += ["-c", "dynamic_shared_memory_type=mmap"]
        self._finish_program(self._program(node, command), deadline, "initdb", node)
        password_file.unlink()
        # The settings stand beside the data folder, so that neither pg_basebackup nor pg_rewind
        # carries one node's to another. Both copy this line, which is right for every node.
        self._put(node.data_directory / "postgresql.conf", "include '../server.conf'\n")
        self._put(
            node.data_directory / "pg_hba.conf",
            f"host all all {_HOST}/32 scram-sha-256\n"
            f"host replication all {_HOST}/32 scram-sha-256\n",
        )
        self._write_settings(node, upstream=None)
        self._launch(node, deadline, may_move=True)
        self._nodes.append(node)
        return node

    def _clone(self, count: int, deadline: _Deadline) -> list[Node]:
        """Make replicas of the primary, side by side."""
        primary = self.primary
        first = len(self._nodes) + 1
        nodes = [self._new_node(number) for number in range(first, first + count)]
        try:
            self._copy_data(nodes, primary, deadline)
            for node in nodes:
                self._spawn_server(node)
            for node in nodes:
                self._await_ready(node, deadline, may_move=True)
            for node in nodes:
                if not self._streams(node, primary, deadline, patience=deadline.left):
                    self._pause(deadline, f"{node!r} does not stream", node)
        except BaseException:
            # The cluster may live on without them.
            for node in nodes:
                with contextlib.suppress(ClusterError), self._guarding() as guardian:
                    guardian.kill(node.folder)
                shutil.rmtree(node.folder, ignore_errors=True)
            raise
        self._nodes += nodes
        return nodes

    def _copy_data(self, nodes: Sequence[Node], upstream: Node, deadline: _Deadline) -> None:
        command = ["pg_basebackup", "-D", "data", "--checkpoint=fast", "--no-sync", "-X", "stream"]
        copies = [(node, self._program(node, command, upstream)) for node in nodes]
        for node, copy in copies:
            self._finish_program(copy, deadline, f"pg_basebackup from {upstream!r}", node)
            self._write_settings(node, upstream=upstream)

    def _rebuild(self, node: Node, upstream: Node, deadline: _Deadline) -> None:
        self.kill(node)
        shutil.rmtree(node.data_directory)
        self._copy_data([node], upstream, deadline)
        self._launch(node, deadline)
        if not self._streams(node, upstream, deadline, patience=deadline.left):
            self._pause(deadline, f"{node!r} does not stream", node)

    def _rewind(self, node: Node, upstream: Node, deadline: _Deadline) -> bool:
        """Take a former primary back to where `upstream` branched off; whether that worked."""
        # Until the first checkpoint after a promotion, the control file still names the old
        # timeline, and pg_rewind would see nothing to do.
        self._query(upstream, "CHECKPOINT", deadline.left)
        source = f"host={upstream.host} port={upstream.port} user={_USER} dbname={_DATABASE}"
        command = ["pg_rewind", "-D", "data", f"--source-server={source}", "--no-sync"]
        try:
            self._finish_program(self._program(node, command), deadline, "pg_rewind", node)
        except ClusterError:
            return False
        return True

    def _launch(self, node: Node, deadline: _Deadline, *, may_move: bool = False) -> None:
        self._spawn_server(node)
        self._await_ready(node, deadline, may_move=may_move)

    def _spawn_server(self, node: Node) -> None:
        with node.log_file.open("ab") as log:
            node.took_process(self._program(node, ["postgres", "-D", "data"], log=log))

    def _await_ready(self, node: Node, deadline: _Deadline, *, may_move: bool) -> None:
        """Wait until the server accepts connections.

        With `may_move`, a new node whose port somebody took meanwhile gets another one.
        """
        while not node.is_ready:
            if node.is_running:
                self._pause(deadline, f"{node!r} is not ready", node)
            elif may_move and "Address already in use" in node.log_tail() and not deadline.passed:
                node.log_file.unlink()
                node.took_port(self._ports.take())
                self._write_settings(node, upstream=None if self._primary is None else self.primary)
                self._spawn_server(node)
            else:
                raise ClusterError(f"{node!r} ended while it was starting\n{node.log_tail()}")

    def _clean_stop(self, node: Node, mode: StopMode, timeout: float) -> None:
        node.send(_STOP_SIGNALS[mode])
        if node.wait_exit(timeout) is None:
            raise ClusterError(f"{node!r} is not down after {timeout:g} s\n{node.log_tail()}")

    def _streams(
        self, node: Node, upstream: Node, deadline: _Deadline, patience: float = _FOLLOW_TIMEOUT
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
        while not deadline.passed:
            try:
                lsn, sends = self._query(upstream, upstream_says, deadline.left).split("|")
                goal = goal or lsn
                if sends == "t" and self._query(node, node_says.format(goal), deadline.left) == "t":
                    return True
            except ClusterError:
                # Out of time in the middle of a query.
                if not deadline.passed:
                    raise
            time.sleep(_PAUSE)
        return False

    def _is_ahead(self, follower: Node, node: Node, deadline: _Deadline) -> bool:
        """Whether a replica has replayed what `node`, just promoted, has never seen.

        One that has gone over to the new timeline already is past the branch point, too, and may
        be: it was not ahead, or it could not have gone over.
        """
        says = (
            "SELECT pg_last_wal_replay_lsn(),"
            " ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"
        )
        branch, timeline = self._query(node, says, deadline.left).split("|")
        ahead = (
            f"SELECT pg_last_wal_replay_lsn() > '{branch}' AND NOT EXISTS"
            f" (SELECT FROM pg_stat_wal_receiver WHERE received_tli >= {timeline})"
        )
        return self._query(follower, ahead, deadline.left) == "t"

    def _new_node(self, number: int) -> Node:
        running = self._now()
        folder = running.root / f"node{number}"
        folder.mkdir()
        running.account.adopt(folder)
        return Node(folder.name, self._ports.take(), folder, self._password)

    def _put(self, path: Path, text: str) -> None:
        path.write_text(text)
        self._now().account.adopt(path)

    def _write_settings(self, node: Node, upstream: Node | None) -> None:
        """Write the server's settings; with an upstream, it is a replica when it starts."""
        major = self._now().binaries.major
        settings = {
            "listen_addresses": _HOST,
            "port": str(node.port),
            "unix_socket_directories": "",
            "cluster_name": node.name,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "lc_messages": "C",
            "lc_monetary": "C",
            "lc_numeric": "C",
            "lc_time": "C",
            "default_text_search_config": "pg_catalog.english",
            "max_connections": "50",
            "shared_buffers": "16MB",
            # Files in the data folder, which end with it; /dev/shm would outlive a SIGKILL.
            "dynamic_shared_memory_type": "mmap",
            "fsync": "off",
            "wal_level": "replica",
            "hot_standby": "on",
            # For pg_rewind; the WAL that is kept, see below, is for it too.
            "wal_log_hints": "on",
            "max_wal_senders": "20",
            "recovery_target_timeline": "latest",
            "wal_retrieve_retry_interval": "100ms",
            "wal_receiver_status_interval": "1s",
            # A primary that shuts down waits so long for a frozen replica.
            "wal_sender_timeout": "10s",
            "wal_receiver_timeout": "10s",
        }
        settings |= {"wal_keep_size": "256MB"} if major >= 13 else {"wal_keep_segments": "16"}
        if major >= 18:
            # No processes of their own for reading.
            settings["io_method"] = "sync"
        if upstream is not None:
            settings["primary_conninfo"] = (
                f"host={upstream.host} port={upstream.port} user={_USER} "
                f"password={self._password} application_name={node.name}"
            )
            self._put(node.standby_file, "")
        lines = [
            f"{name} = {_quoted(value)}\n" for name, value in (settings | self._settings).items()
        ]
        self._put(node.settings_file, "".join(lines))

    def _program(
        self,
        node: Node,
        command: Sequence[str],
        upstream: Node | None = None,
        log: IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start one of PostgreSQL's programs in the node's folder.

        Relative paths only: if the folder is gone, what starts late can't make it anew.
        """
        running = self._now()
        extra = {"PGHOST": upstream.host, "PGPORT": str(upstream.port)} if upstream else {}
        if log is None:
            extra |= {"PGUSER": _USER, "PGPASSWORD": self._password}
        return running.account.spawn(
            [running.binaries.program(command[0]), *command[1:]],
            cwd=node.folder,
            env=environment(HOME=str(running.root), **extra),
            stdout=log or subprocess.PIPE,
            stderr=log or subprocess.PIPE,
        )

    def _finish_program(
        self, process: subprocess.Popen[bytes], deadline: _Deadline, what: str, node: Node
    ) -> None:
        try:
            _finish(process, deadline.left, what)
        except BaseException:
            # A program may have children that outlive it.
            with contextlib.suppress(ClusterError), self._guarding() as guardian:
                guardian.kill(node.folder)
            raise


@dataclass(slots=True)
class _Running:
    """What a started cluster has."""

    guardian: Guardian
    account: Account
    binaries: PostgresBinaries

    @property
    def root(self) -> Path:
        return self.guardian.root


def _finish(
    process: subprocess.Popen[bytes], timeout: float, what: str, given: bytes | None = None
) -> str:
    """Wait for a program and return what it printed; `what` names it in errors."""
    with process:
        try:
            printed, complaints = process.communicate(given, timeout)
        except BaseException as error:
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise ClusterError(f"{what} gave no answer in {timeout:g} s") from None
            raise
    if process.returncode != 0:
        said = complaints.decode(errors="replace").strip()
        raise ClusterError(f"{what} failed with exit code {process.returncode}:\n{said}")
    return printed.decode(errors="replace")


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
