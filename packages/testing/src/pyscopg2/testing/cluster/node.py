"""One server of a cluster."""

import signal
import subprocess
from pathlib import Path
from typing import Literal, final

from pyscopg2.testing.cluster.ports import HOST

__all__ = ("DATABASE", "USER", "Node", "Role")

Role = Literal["primary", "replica"]

USER = "postgres"
"""The superuser."""

DATABASE = "postgres"

_LOG_TAIL = 3000


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
        return HOST

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
        return f"postgresql://{USER}:{self._password}@{self.address}/{DATABASE}"

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
