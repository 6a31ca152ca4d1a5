"""What asyncpg's errors say, and the user's hooks of a pool."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pyscopg2.core.adapter.protocol import HookError

_LOST = (
    "connection is closed",
    "connection was closed",
    "connection has been released back to the pool",
)
"""In the messages of asyncpg's `InterfaceError`, which is raised for many a mistake, too."""

Hook = Callable[[Any], Awaitable[None]]


class AsyncpgErrors:
    """By the classes of the module that an adapter hands in."""

    def __init__(self, asyncpg: Any) -> None:
        self.cut_off: tuple[type[BaseException], ...] = (
            asyncpg.PostgresConnectionError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
        )
        """What a pending query raises when its connection is terminated."""
        self.lost: type[Exception] = asyncpg.ConnectionDoesNotExistError
        """Of a query whose connection was closed meanwhile."""
        self.interface: type[Exception] = asyncpg.InterfaceError
        """Above all, of a proxy whose connection was given back."""
        self._of_server: type[BaseException] = asyncpg.PostgresError
        self._internal: type[BaseException] = asyncpg.InternalClientError
        self._outdated: type[BaseException] = asyncpg.OutdatedSchemaCacheError

    def sqlstate(self, exc: BaseException) -> str | None:
        """What the server sent; that of a broken connection for asyncpg's own word for it."""
        if isinstance(exc, self._of_server):
            code: object = getattr(exc, "sqlstate", None)
            return code if isinstance(code, str) else None
        # "cannot switch to state ...", "got result for unknown protocol state": what asyncpg makes
        # of a connection that was lost at a moment it did not think of.
        is_broken = isinstance(exc, self._internal) and not isinstance(exc, self._outdated)
        return "08006" if is_broken else None

    def is_lost(self, exc: BaseException) -> bool:
        """Of asyncpg's own words: a connection that is closed, or whose proxy was given back, as
        is done with those that the manager terminates."""
        if not isinstance(exc, self.interface):
            return False
        return any(words in str(exc) for words in _LOST)

    def told(self, hook: Hook) -> Hook:
        """The hook, whose own errors become a `HookError`; not those of a broken connection."""

        async def telling(connection: Any) -> None:
            try:
                await hook(connection)
            except asyncio.CancelledError:
                # asyncpg would close it gracefully now, and wait for as long as its server is
                # silent.
                connection.terminate()
                raise
            except Exception as exc:
                if self._is_hosts_fault(exc) or self._is_closed(connection):
                    raise
                raise HookError(f"a hook of the pool's failed: {type(exc).__name__}") from exc

        return telling

    def _is_closed(self, connection: Any) -> bool:
        try:
            return bool(connection.is_closed())
        except self.interface:
            return True  # a proxy whose connection was lost

    def _is_hosts_fault(self, exc: Exception) -> bool:
        # Not every OSError: one of another service's is the hook's own, and one of this
        # connection's closes it. But a query of the hook's that takes too long does not.
        code = self.sqlstate(exc)
        return isinstance(exc, TimeoutError) or (
            code is not None and code.startswith(("08", "57P"))
        )


def hear_of(connection: Any) -> None:
    """Within a reset that fails: if the connection was cut off, the manager knows of it.

    asyncpg resets a connection that is given back in a task of its own. If its user is cancelled
    meanwhile and the connection terminated later, nobody asks for that task's error any more, and
    asyncio logs it. To suppress the error is no way out: asyncpg takes the connection for sound.
    """
    task = asyncio.current_task()
    if task is not None and connection.is_closed():
        task.add_done_callback(_hear)


def _hear(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
