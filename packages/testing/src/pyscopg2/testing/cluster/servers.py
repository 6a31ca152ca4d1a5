"""How a cluster's servers are started and shut down."""

import signal
from collections.abc import Mapping
from typing import Literal

from pyscopg2.testing.cluster.deadline import Deadline
from pyscopg2.testing.cluster.node import Node
from pyscopg2.testing.cluster.ports import Ports
from pyscopg2.testing.cluster.programs import Programs
from pyscopg2.testing.cluster.site import Site
from pyscopg2.testing.postgres import ClusterError

__all__ = ("Servers", "StopMode")

StopMode = Literal["smart", "fast", "immediate"]

_STOP_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class Servers:
    """The postmasters of a cluster's nodes."""

    def __init__(self, site: Site, programs: Programs, ports: Ports) -> None:
        self._site = site
        self._programs = programs
        self._ports = ports

    def launch(self, node: Node, deadline: Deadline) -> None:
        self.spawn(node)
        self._await_ready(node, deadline)

    def spawn(self, node: Node) -> None:
        with node.log_file.open("ab") as log:
            node.took_process(self._programs.start(node, ["postgres", "-D", "data"], log=log))

    def await_first_ready(self, node: Node, upstream: Node | None, deadline: Deadline) -> None:
        """Wait until a new node's server accepts connections.

        If somebody took its port meanwhile, it gets another one.
        """
        while True:
            try:
                self._await_ready(node, deadline)
            except ClusterError:
                # Not by what it said: settings decide whether it says so, where, and how.
                if node.is_running or not self._ports.is_taken(node.port) or deadline.passed:
                    raise
            else:
                return
            node.log_file.unlink()
            node.took_port(self._ports.take())
            self._site.configure(node, upstream)
            self.spawn(node)

    def stop(self, node: Node, mode: StopMode, timeout: float) -> None:
        node.send(_STOP_SIGNALS[mode])
        if node.wait_exit(timeout) is None:
            raise ClusterError(f"{node!r} is not down after {timeout:g} s\n{node.log_tail()}")

    def kill(self, node: Node, timeout: float) -> None:
        self._site.kill(node)
        node.wait_exit(timeout)

    def _await_ready(self, node: Node, deadline: Deadline) -> None:
        while not node.is_ready:
            if not node.is_running:
                raise ClusterError(f"{node!r} ended while it was starting\n{node.log_tail()}")
            deadline.pause(f"{node!r} is not ready", node)
