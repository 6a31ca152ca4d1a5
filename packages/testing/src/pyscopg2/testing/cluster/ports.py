"""Ports of this machine, each for one server."""

import contextlib
import errno
import random
import socket
import sys

from pyscopg2.testing.postgres import ClusterError

__all__ = ("HOST", "Ports")

HOST = "127.0.0.1"
"""Where all servers listen."""

# Below the range from which the kernel takes the ports of outgoing connections: a client that
# polls a stopped port inside that range can end up connected to itself.
PORTS = range(20000, 32768)


class Ports:
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
        for port in self._random.sample(PORTS, len(PORTS)):
            if self._reserve(port):
                return port
        raise ClusterError(f"no free port in {PORTS.start}-{PORTS.stop - 1}")

    def release(self) -> None:
        self._held.close()

    def is_taken(self, port: int) -> bool:
        """Whether somebody listens on it."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return not self._bind(probe, (HOST, port))

    def _reserve(self, port: int) -> bool:
        with contextlib.ExitStack() as held:
            if sys.platform == "linux":
                name = held.enter_context(socket.socket(socket.AF_UNIX))
                if not self._bind(name, f"\0pyscopg2-testing-port-{port}"):
                    return False
            if self.is_taken(port):
                return False
            self._held.enter_context(held.pop_all())
        return True

    def _bind(self, sock: socket.socket, address: str | tuple[str, int]) -> bool:
        try:
            sock.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        return True
