"""A connection of pg8000 for asyncio: what blocks runs in a thread, for as long as it blocks.

The socket is ours, and pg8000 works on it. So it can be shut down from outside, at any moment and
whatever the server does; a thread that waits for the server then ends at once.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from io import BufferedIOBase
from threading import Thread
from typing import Any, Self, TypeVar

from pg8000 import native
from pg8000.native import DatabaseError, InterfaceError

from pyscopg2.core.dsn import Target

T = TypeVar("T")


class Connection:
    """pg8000's native interface, with `run` as a coroutine. Each statement commits by itself.

    A `run` that is cancelled, or that fails otherwise than by an answer of the server, cuts the
    connection off: nobody knows what the server would say next.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._line = _Line(sock)
        self._native: _Native | None = None
        self._thread: Future[Any] = Future()
        self._thread.set_result(None)
        self._turn = asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(cls, target: Target) -> Self:
        """Connect and log in. When this fails or is cancelled, nothing stays open."""
        self = cls(await _dial(target))
        try:
            self._native = await self._in_thread(partial(_log_in, target, self._line))
        except BaseException:
            self.terminate()
            raise
        return self

    @property
    def closed(self) -> bool:
        return self._closed

    async def run(self, sql: str, **params: Any) -> list[list[Any]] | None:
        """What `pg8000.native.Connection.run` does: the rows of a statement, if it has any."""
        async with self._turn:
            if self._native is None or self._closed:
                raise InterfaceError("the connection is closed")
            return await self._in_thread(partial(self._native.run, sql, **params))

    async def reset(self) -> None:
        """Wait for what still runs, and roll back what the user left open."""
        async with self._turn:
            if self._native is not None and self._native.in_transaction and not self._closed:
                await self._in_thread(partial(self._native.run, "ROLLBACK"))

    def is_quiet(self) -> bool:
        """Of an idle connection: False when the server has hung up, or said that it will.

        What else it may say at any time does not count: settings, notices, notifications.
        """
        try:
            said = self._line.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return said in {b"S", b"N", b"A"}

    def close(self) -> None:
        """Say goodbye, on an idle connection: a few bytes, which the kernel takes at once."""
        if self._native is not None and not self._closed:
            with contextlib.suppress(InterfaceError):  # the server has gone
                self._native.close()
        self.terminate()

    def terminate(self) -> None:
        """Cut the connection off; whatever waits for it fails."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):  # it is closed already
            self._line.sock.shutdown(socket.SHUT_RDWR)
        # Not while a thread still uses it.
        self._thread.add_done_callback(lambda _: self._line.close())

    async def _in_thread(self, work: Callable[[], T]) -> T:
        self._thread = thread = _in_thread(work)
        try:
            return await asyncio.wrap_future(thread)
        except DatabaseError as exc:
            if _is_fatal(exc):
                self.terminate()
            raise
        except BaseException:
            self.terminate()
            raise


class _Native(native.Connection):
    """Knows whether a transaction is open, and keeps the server's last words.

    (After a fatal error pg8000 waits for more, and then raises that there was no more.)
    """

    in_transaction = False

    def handle_READY_FOR_QUERY(self, data: bytes, context: Any) -> None:  # noqa: N802
        super().handle_READY_FOR_QUERY(data, context)
        self.in_transaction = data != b"I"

    def handle_ERROR_RESPONSE(self, data: bytes, context: Any) -> None:  # noqa: N802
        super().handle_ERROR_RESPONSE(data, context)
        if _is_fatal(context.error):
            raise context.error


def _is_fatal(exc: DatabaseError) -> bool:
    return exc.args[0].get("V") in {"FATAL", "PANIC"}


class _Line:
    """What pg8000 uses of a socket: one file, which it would leave open."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._file = sock.makefile("rwb")

    def makefile(self, mode: str) -> BufferedIOBase:
        return self._file

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it holds bytes that nobody will ever read
            self._file.close()
        self.sock.close()


def _log_in(target: Target, line: _Line) -> _Native:
    return _Native(
        target.user or "",
        password=target.password or "",
        database=target.dbname,
        application_name=target.params.get("application_name"),
        startup_params={
            name: target.params[name] for name in ("options",) if name in target.params
        },
        ssl_context=False,
        sock=line,
    )


async def _dial(target: Target) -> socket.socket:
    """A blocking socket, connected to the first of the host's addresses that accepts."""
    loop = asyncio.get_running_loop()
    refused: OSError | None = None
    for family, address in await _addresses(target.hostaddr or target.host or "localhost", target):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            sock.setblocking(True)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError as exc:
            sock.close()
            refused = exc
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise refused or OSError("the host has no address")


async def _addresses(host: str, target: Target) -> list[tuple[int, Any]]:
    if host.startswith("/"):
        return [(socket.AF_UNIX, f"{host}/.s.PGSQL.{target.port}")]
    look_up = partial(socket.getaddrinfo, host, target.port, type=socket.SOCK_STREAM)
    # The one thread that cannot be stopped: it ends when the resolver gives up.
    found = await asyncio.wrap_future(_in_thread(look_up))
    return [(family, address) for family, _, _, _, address in found]


def _in_thread(work: Callable[[], T]) -> Future[T]:
    """Run it in a daemon thread of its own.

    Not in one of an executor, as `asyncio.to_thread` does: `asyncio.run` and the interpreter wait
    for those, so a server or a name service that does not answer keeps the program from ending.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # it is done when the thread is, whoever still waits

    def run() -> None:
        try:
            result = work()
        except BaseException as exc:
            future.set_exception(exc)
        else:
            future.set_result(result)

    Thread(target=run, name="pg8000", daemon=True).start()
    return future
