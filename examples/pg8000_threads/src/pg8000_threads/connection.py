"""A connection of pg8000 for asyncio: what blocks runs in a thread, for as long as it blocks.

The socket is ours, and pg8000 works on it. So it can be shut down from outside, at any moment and
whatever the server does; then the thread that waits for it ends at once. No thread outlives this.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

from pg8000 import native
from pg8000.native import DatabaseError, InterfaceError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Login:
    """Where to connect, and as whom."""

    host: str
    """A name or an address, or the folder of a Unix socket."""
    port: int
    user: str
    password: str
    database: str | None
    application_name: str | None
    startup_params: dict[str, str]
    tls_name: str
    ssl_context: ssl.SSLContext | bool | None
    """As pg8000 has it. None: encrypted if the server can; a bool: never, or always."""


class Connection:
    """pg8000's native interface, with `run` as a coroutine. Each statement commits by itself.

    A `run` that is cancelled cuts the connection off: pg8000 has no other way to end a query.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        # TLS takes pg8000's socket over; this one leads to the same line and stays ours.
        self._line = sock.dup()
        self._native: _Native | None = None
        self._thread: Future[Any] = Future()
        self._turn = asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(cls, login: Login) -> Self:
        """Connect and log in. When this fails or is cancelled, nothing stays open."""
        self = cls(await _dial(login.host, login.port))
        await self._in_thread(partial(self._log_in, login))
        return self

    @property
    def closed(self) -> bool:
        return self._closed

    async def run(self, sql: str, **params: Any) -> list[list[Any]] | None:
        """Run one statement, as `pg8000.native.Connection.run` does; its rows, if it has any."""
        async with self._turn:
            if self._native is None or self._closed:
                raise InterfaceError("the connection is closed")
            return await self._in_thread(partial(self._native.run, sql, **params))

    async def reset(self) -> None:
        """Roll back what the user left open."""
        if self._native is not None and self._native.in_transaction:
            await self.run("ROLLBACK")

    def is_quiet(self) -> bool:
        """Of an idle connection: False if the server has hung up, or has said why it will.

        It may say other things at any time: a changed setting, a notice, a notification.
        """
        try:
            said = self._line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return said in {b"S", b"N", b"A"}

    def close(self) -> None:
        """Say goodbye on an idle connection. The few bytes fit into the kernel's buffer."""
        if self._native is not None and self._thread.done():
            with contextlib.suppress(InterfaceError):  # closed already, or the line is dead
                self._native.close()
        self.terminate()

    def terminate(self) -> None:
        """Cut the connection off; whatever waits for it fails."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):  # the server was quicker
            self._line.shutdown(socket.SHUT_RDWR)
        # Not under the feet of a thread that still uses it.
        self._thread.add_done_callback(self._let_go)

    def _let_go(self, _: Future[Any]) -> None:
        if self._native is not None:
            with contextlib.suppress(InterfaceError):  # it cannot say goodbye any more
                self._native.close()
        self._socket.close()
        self._line.close()

    def _log_in(self, login: Login) -> None:
        self._native = _Native(
            login.user,
            host=login.tls_name,
            database=login.database,
            password=login.password,
            ssl_context=login.ssl_context,
            application_name=login.application_name,
            startup_params=login.startup_params,
            sock=self._socket,
        )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        self._thread = thread = _in_thread(work)
        try:
            return await asyncio.wrap_future(thread)
        except DatabaseError as exc:
            if _is_fatal(exc):
                self.terminate()
            raise
        except BaseException:  # cancelled, or nobody knows what the server will answer next
            self.terminate()
            raise


class _Native(native.Connection):
    """Knows whether a transaction is open, and keeps the server's last words.

    After a fatal error pg8000 waits for more, and raises that there is no more.
    """

    in_transaction = False

    def handle_READY_FOR_QUERY(self, data: bytes, context: Any) -> None:  # noqa: N802
        super().handle_READY_FOR_QUERY(data, context)
        self.in_transaction = data != b"I"

    def handle_ERROR_RESPONSE(self, data: bytes, context: Any) -> None:  # noqa: N802
        super().handle_ERROR_RESPONSE(data, context)
        if context.error is not None and _is_fatal(context.error):
            raise context.error


def _is_fatal(exc: Exception) -> bool:
    return bool(exc.args) and exc.args[0].get("V") in {"FATAL", "PANIC"}


async def _dial(host: str, port: int) -> socket.socket:
    """A connected socket that blocks, to the first of the host's addresses that answers."""
    loop = asyncio.get_running_loop()
    refused: OSError | None = None
    for family, address in await _addresses(host, port):
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
    raise refused or OSError(f"{host} has no address")


async def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    if host.startswith("/"):
        return [(socket.AF_UNIX, f"{host}/.s.PGSQL.{port}")]
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    # Cancelled, its thread ends with the resolver's own time limit.
    found = await asyncio.wrap_future(_in_thread(look_up))
    return [(family, address) for family, _, _, _, address in found]


def _in_thread(work: Callable[[], T]) -> Future[T]:
    """Run it in a daemon thread of its own. The threads of an executor keep a program from ending:
    `asyncio.run` and the interpreter wait for them.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # who stops waiting for it does not take it back

    def run() -> None:
        try:
            result = work()
        except BaseException as exc:
            future.set_exception(exc)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="pg8000", daemon=True).start()
    return future
