"""The line to a host: a socket that is ours, so that it can be shut down at any moment."""

import asyncio
import contextlib
import socket
from functools import partial
from io import BufferedIOBase
from typing import Any, Self

from pg8000_threads.threads import in_thread
from pyscopg2.core.adapter.hangup import shut_down
from pyscopg2.core.dsn import Target


class Line:
    """What pg8000 uses of a socket: one file, which it would leave open."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rwb")

    @classmethod
    async def open(cls, target: Target) -> Self:
        """To the first of the host's addresses that accepts."""
        refused: OSError | None = None
        for family, address in await _addresses(target):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                # Not in a thread, where nothing could cancel it.
                await asyncio.get_running_loop().sock_connect(sock, address)
                sock.setblocking(True)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            except OSError as exc:
                sock.close()
                refused = exc
            except BaseException:
                sock.close()
                raise
            else:
                return cls(sock)
        raise refused or OSError("the host has no address")

    def fileno(self) -> int:
        return self._sock.fileno()

    def makefile(self, mode: str) -> BufferedIOBase:
        return self._file

    def shut_down(self) -> None:
        """A thread that waits on it reads its end."""
        if self.fileno() >= 0:
            shut_down(self.fileno())

    def close(self) -> None:
        """Not while a thread uses it: its descriptor may be somebody else's by then."""
        with contextlib.suppress(OSError):  # it holds bytes that nobody will ever read
            self._file.close()
        self._sock.close()


async def _addresses(target: Target) -> list[tuple[int, Any]]:
    host = target.hostaddr or target.host or "localhost"
    if host.startswith("/"):
        return [(socket.AF_UNIX, f"{host}/.s.PGSQL.{target.port}")]
    look_up = partial(socket.getaddrinfo, host, target.port, type=socket.SOCK_STREAM)
    # The one thread that can't be stopped: it ends when the resolver gives up.
    found = await asyncio.wrap_future(in_thread(look_up))
    return [(family, address) for family, _, _, _, address in found]
