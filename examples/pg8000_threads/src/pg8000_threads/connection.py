"""A connection of pg8000 for asyncio: what blocks runs in a thread, and its line can be shut down
from outside, whatever the server does; a thread that waits for the server then ends at once."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Self, TypeVar

from pg8000 import native
from pg8000.native import DatabaseError, InterfaceError

from pg8000_threads.line import Line
from pg8000_threads.threads import in_thread
from pyscopg2.core.adapter.driver_params import supported
from pyscopg2.core.dsn import Target

PARAMS = ("application_name", "connect_timeout", "options")
"""Of the DSN's parameters, what is made use of here."""

T = TypeVar("T")


class Connection:
    """pg8000's native interface, with `run` as a coroutine. Each statement commits by itself.

    A `run` that is cancelled, or that fails otherwise than by an answer of the server, closes the
    connection: nobody knows what the server would say next.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._native: _Native | None = None
        self._thread: Future[Any] = Future()
        self._thread.set_result(None)
        self._turn = asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(cls, target: Target) -> Self:
        """Connect and log in. When this fails or is cancelled, nothing stays open."""
        self = cls(await Line.open(target))
        self._native = await self._in_thread(partial(_log_in, target, self._line))
        return self

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits for a `run`."""
        return self._turn.locked()

    @property
    def in_transaction(self) -> bool:
        """Whether the server said so with its last answer."""
        return self._native is not None and self._native.in_transaction

    def fileno(self) -> int:
        return -1 if self._closed else self._line.fileno()

    def reported(self, name: str) -> str | None:
        """A setting that the server has reported by itself; None: it has not."""
        return None if self._native is None else self._native.parameter_statuses.get(name)

    async def run(self, sql: str, **params: Any) -> list[list[Any]] | None:
        """What `pg8000.native.Connection.run` does: the rows of a statement, if it has any."""
        return await self._ask(lambda asked: asked.run(sql, **params))

    async def text(self, sql: str) -> str | None:
        """The first column of the first row, as the server wrote it, if there is one."""
        return await self._ask(lambda asked: asked.text(sql))

    def close(self) -> None:
        """Never waits. Whatever still waits for the server fails."""
        if self._closed:
            return
        self._closed = True
        if self._native is not None and self._thread.done():
            # Says good-bye: a few bytes, which the kernel takes at once, if the line is open still.
            with contextlib.suppress(InterfaceError):
                self._native.close()
        else:
            self._line.shut_down()
            self._thread.add_done_callback(lambda _: self._line.close())

    async def _ask(self, work: Callable[["_Native"], T]) -> T:
        async with self._turn:
            if self._native is None or self._closed:
                raise InterfaceError("the connection is closed")
            return await self._in_thread(partial(work, self._native))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        self._thread = thread = in_thread(work)
        try:
            return await asyncio.wrap_future(thread)
        except BaseException as exc:
            if not isinstance(exc, DatabaseError) or _is_fatal(exc) or self._native is None:
                self.close()
            raise


class _Native(native.Connection):
    """Knows whether a transaction is open, and keeps the server's last words.

    (After a fatal error pg8000 waits for more, and then raises that there was no more.)
    """

    in_transaction = False

    def text(self, sql: str) -> str | None:
        known, self.pg_types = self.pg_types, defaultdict(lambda: str)
        try:
            rows = self.run(sql)
        finally:
            self.pg_types = known
        return rows[0][0] if rows else None

    def handle_READY_FOR_QUERY(self, data: bytes, context: Any) -> None:  # noqa: N802
        super().handle_READY_FOR_QUERY(data, context)
        self.in_transaction = data != b"I"

    def handle_ERROR_RESPONSE(self, data: bytes, context: Any) -> None:  # noqa: N802
        super().handle_ERROR_RESPONSE(data, context)
        if _is_fatal(context.error):
            raise context.error


def _is_fatal(exc: DatabaseError) -> bool:
    return exc.args[0].get("V") in {"FATAL", "PANIC"}


def _log_in(target: Target, line: Line) -> _Native:
    params = supported(target, PARAMS)
    return _Native(
        target.user or "",
        password=target.password or "",
        database=target.dbname,
        application_name=params.get("application_name"),
        startup_params={"options": params.get("options", "")},
        ssl_context=False,
        sock=line,
    )
