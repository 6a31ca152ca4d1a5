"""The sockets of connections whose driver does not show them."""

import os
import socket
from pathlib import Path
from weakref import finalize

from pyscopg2.core.adapter.hangup import hung_up, shut_down

_DESCRIPTORS = Path("/dev/fd")
"""Of this process, on Linux and macOS."""


class Wire:
    """A descriptor of our own for a socket that is the driver's.

    The driver closes its descriptor in a thread of its own, at any moment; another socket may have
    that number a moment later. A duplicate stays what it is. It is closed with this object.
    """

    def __init__(self, fileno: int) -> None:
        """`OSError`: there is no such descriptor any more."""
        self._fileno = os.dup(fileno)
        self._is_cut = False
        self.close = finalize(self, os.close, self._fileno)
        """Closes ours; the driver's stays open."""

    def leads(self, port: int, peer: int) -> bool:
        """Whether it is a socket, from this TCP port of ours to that one of the other side's."""
        try:
            borrowed = socket.socket(fileno=self._fileno)
        except OSError:
            return False
        try:
            if borrowed.family == socket.AF_UNIX:
                return False
            return (borrowed.getsockname()[1], borrowed.getpeername()[1]) == (port, peer)
        except OSError:
            return False
        finally:
            borrowed.detach()

    def has_ended(self) -> bool:
        return self._is_cut or hung_up(self._fileno)

    def cut(self) -> None:
        self._is_cut = True
        shut_down(self._fileno)


def wire_of(fileno: int, port: int, peer: int) -> Wire | None:
    """A wire to this descriptor, if it is the socket that leads from one port to the other."""
    try:
        wire = Wire(fileno)
    except OSError:
        return None
    if wire.leads(port, peer):
        return wire
    wire.close()
    return None


def find(port: int, peer: int) -> tuple[int, Wire] | None:
    """The descriptor of the socket that leads from one port to the other, and a wire to it."""
    for entry in list(_DESCRIPTORS.iterdir()):
        if (wire := wire_of(int(entry.name), port, peer)) is not None:
            return int(entry.name), wire
    return None
