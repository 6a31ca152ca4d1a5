"""What the errors of aiopg and psycopg2 say, and waiting for those who raise them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pyscopg2.core.adapter.refusals import refusal_sqlstate

T = TypeVar("T")

_HOSTS = ("08", "25006", "53", "57", "58")
"""SQLSTATEs that tell of the host: it, later, or another one may do what it did not (PostgreSQL
manual, appendix A). A lost connection, a server that is read-only, short of something, told to stop
(the query, or itself), or broken."""


class AiopgErrors:
    """By the classes of the module psycopg2, which an adapter hands in."""

    def __init__(self, psycopg2: Any) -> None:
        self.base: type[Exception] = psycopg2.Error
        self.operational: type[Exception] = psycopg2.OperationalError
        self.interface: type[Exception] = psycopg2.InterfaceError
        self.data: type[Exception] = psycopg2.DataError
        self._cancelled: type[Exception] = psycopg2.extensions.QueryCanceledError

    def sqlstate(self, exc: BaseException) -> str | None:
        """What the server sent, or its words for a refused connect tell."""
        if not isinstance(exc, self.base):
            return None
        code: object = getattr(exc, "pgcode", None)
        if code is None and isinstance(exc, self.operational):
            return refusal_sqlstate(str(exc))
        return code if isinstance(code, str) else None

    def is_lost(self, exc: BaseException) -> bool:
        """What no server has sent, psycopg2 and aiopg say of the connection: that is lost, closed,
        or never came about. Their words for a mistake are an `InterfaceError`, too."""
        if getattr(exc, "pgcode", None) is not None:
            return False
        if isinstance(exc, self.interface):
            return "closed" in str(exc) and "cursor" not in str(exc)
        return isinstance(exc, self.operational)

    def tells_of_the_host(self, exc: Exception) -> bool:
        """What a user's hook has raised, rather than an error of the hook's own."""
        code: object = getattr(exc, "pgcode", None) if isinstance(exc, self.base) else None
        if isinstance(code, str):
            return code.startswith(_HOSTS)
        return isinstance(exc, (self.operational, OSError))

    def broken(self, exc: AssertionError) -> Exception:
        """An assertion of aiopg's own, as the driver's error that it is."""
        return self.interface(f"aiopg has lost track of a connection: {exc}")

    async def heed(self, work: Awaitable[T], undo: Callable[[T], object]) -> T:
        """Wait for what aiopg does. `CancelledError` where this task was cancelled, always and
        only.

        aiopg raises that, too, where the server has cancelled a query, by a statement_timeout
        perhaps: here it is the driver's error. And `asyncio.wait_for`, which aiopg uses, may forget
        on Python 3.11 that the task was cancelled: ``undo`` takes back what has come all the same.
        An assertion of aiopg's own is its error, and nobody's misuse.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            result = await work
        except BaseException as exc:
            if isinstance(exc, asyncio.CancelledError):
                said = exc.__context__
                if _is_cancelled(task, before) or not isinstance(said, self._cancelled):
                    raise
                raise said from None
            if not _is_cancelled(task, before):
                if isinstance(exc, AssertionError):
                    raise self.broken(exc) from exc
                raise
        else:
            if not _is_cancelled(task, before):
                return result
            undo(result)
        # A scope of anyio's knows its own cancellations only, and gives one in each turn of the
        # loop.
        await asyncio.sleep(0)
        raise asyncio.CancelledError


def _is_cancelled(task: asyncio.Task[Any] | None, before: int) -> bool:
    return task is not None and task.cancelling() > before
