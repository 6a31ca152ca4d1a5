"""An adapter for a driver that has connections, and no pool that can be ended.

Its author writes how to connect, and what can be done with one connection; the pool is here.
"""

import asyncio
import inspect
from abc import ABC, abstractmethod
from functools import partial
from traceback import clear_frames
from typing import Any, Generic

from pyscopg2.core.adapter.cutting import cut_first
from pyscopg2.core.adapter.hangup import hung_up, says_good_bye, shut_down
from pyscopg2.core.adapter.protocol import ConnT, TellsRecovery
from pyscopg2.core.dsn.target import Target

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
_NO_TIMEOUT = "SET LOCAL statement_timeout = 0"
_REFUSED = "0A000"
_CANCELLED = "57014"


class ConnectionPool(Generic[ConnT]):
    """A small pool: the core sees to it that nobody asks it for more than it may have."""

    __slots__ = ("connecting", "idle", "is_ended", "max_size", "options", "out", "target")

    def __init__(self, target: Target, max_size: int, options: dict[str, Any]) -> None:
        self.target = target
        self.max_size = max_size
        self.options = options
        self.idle: list[ConnT] = []
        """The one that came back last is taken first."""
        self.out: dict[int, ConnT] = {}
        """By ``id()``: connections need not be hashable."""
        self.connecting = 0
        self.is_ended = False

    @property
    def size(self) -> int:
        """Connections that are idle, out, or being opened."""
        return len(self.idle) + len(self.out) + self.connecting


class PooledAdapter(ABC, Generic[ConnT]):
    """`Adapter` by seven verbs of one connection.

    Its pool takes ``min_size`` (1 by default) and ``max_size`` (10) among its options; the others
    are those that `connect` names. Users give no arguments to an acquire or a release. A block
    neither commits nor rolls back, unless an author adds `EndsBlocks`: what is open is rolled back
    by `reset`.
    """

    # What an author writes

    @abstractmethod
    async def connect(self, target: Target, /) -> ConnT:
        """Connect to this one host. Name the options that you know, as keyword arguments after the
        target: others are refused.

        A host that refuses raises the driver's own error. Cancelled or failed, leave no socket; one
        that hangs on a traceback is freed here. `ValueError`: the driver can't do what the DSN
        demands (`driver_params.supported` says so for drivers without libpq).
        """
        ...

    @abstractmethod
    def fileno(self, connection: ConnT, /) -> int:
        """The descriptor of its socket; a negative one, or an error, where it is closed."""
        ...

    @abstractmethod
    def is_busy(self, connection: ConnT, /) -> bool:
        """Whether a task waits for the server's answer on it just now."""
        ...

    @abstractmethod
    def close(self, connection: ConnT, /) -> None:
        """Close it and its socket, without waiting for anything. Called twice, too, with its socket
        shut down before, and when no task uses it, or the one that does hears in the same step that
        it is cancelled. Nothing that follows on it may look like a success, a commit least of all.
        """
        ...

    @abstractmethod
    async def reset(self, connection: ConnT, /) -> None:
        """Make it fit for its next user: roll back what is open, and undo what a user may have set.

        Where that needs no round trip, make none. An error drops the connection.
        """
        ...

    @abstractmethod
    async def query(self, connection: ConnT, sql: str, /) -> object:
        """The first column of the first row, as text, or None where there is no row. Begins no
        transaction that stays open."""
        ...

    @abstractmethod
    def sqlstate(self, exc: BaseException, /) -> str | None:
        """As `Adapter.sqlstate`."""
        ...

    # Pools

    def check_options(self, target: Target, /, **options: Any) -> None:
        _, _, own = _sizes(options)
        try:
            inspect.signature(self.connect).bind(target, **own)
        except TypeError as exc:
            raise TypeError(f"pool option: {exc}") from None

    async def create_pool(self, target: Target, /, **options: Any) -> ConnectionPool[ConnT]:
        self.check_options(target, **options)
        min_size, max_size, own = _sizes(options)
        pool = ConnectionPool[ConnT](target, max_size, own)
        try:
            # One in any case, so that a host that refuses is heard of here.
            for _ in range(max(1, min_size)):
                pool.idle.append(await self._connect(pool))
        except BaseException:
            self._end(pool)
            raise
        return pool

    async def close_pool(self, pool: ConnectionPool[ConnT], /) -> None:
        pool.is_ended = True
        while pool.idle:
            self.close(pool.idle.pop())

    async def terminate_pool(self, pool: ConnectionPool[ConnT], /) -> None:
        self._end(pool)

    def _end(self, pool: ConnectionPool[ConnT]) -> None:
        pool.is_ended = True
        for connection in (*pool.idle, *pool.out.values()):
            self.terminate_connection(connection)
        pool.idle.clear()

    def get_pool_maxsize(self, pool: ConnectionPool[ConnT], /) -> int:
        return pool.max_size

    def get_pool_idle_size(self, pool: ConnectionPool[ConnT], /) -> int:
        return len(pool.idle)

    def get_pool_idle_limits(self, pool: ConnectionPool[ConnT], /) -> tuple[int, int]:
        return 0, pool.max_size

    # Taking and giving back

    async def acquire_from_pool(self, pool: ConnectionPool[ConnT], /, **kwargs: Any) -> ConnT:
        if kwargs:
            raise TypeError(f"an acquire takes no arguments here: {', '.join(sorted(kwargs))}")
        while pool.idle:
            connection = pool.idle.pop()
            if not self.is_connection_closed(connection):
                break
            self.terminate_connection(connection)
        else:
            connection = await self._connect(pool)
        pool.out[id(connection)] = connection
        return connection

    async def release_to_pool(
        self, connection: ConnT, pool: ConnectionPool[ConnT], /, **kwargs: Any
    ) -> None:
        """The cases:

        1. The connection is not out: `ValueError`.
        2. It is closed, or a task still uses it, or the pool has ended: it is dropped.
        3. It is reset, and idle from then on.
        4. The reset fails or is cancelled: it is dropped, and that is raised, unless the connection
           was cut off meanwhile.
        """
        if kwargs:
            raise TypeError(f"a release takes no arguments here: {', '.join(sorted(kwargs))}")
        if pool.out.get(id(connection)) is not connection:
            raise ValueError("not a connection of this pool's, or given back already")
        is_sound = False
        try:
            if not self._is_lost(connection, pool) and not self.is_busy(connection):
                await cut_first(self.reset(connection), partial(self._cut_off, connection))
                is_sound = not self._is_lost(connection, pool)
        except Exception:
            if not self.is_connection_closed(connection):
                raise
        finally:
            del pool.out[id(connection)]
            if is_sound:
                pool.idle.append(connection)
            else:
                self.terminate_connection(connection)

    def _is_lost(self, connection: ConnT, pool: ConnectionPool[ConnT]) -> bool:
        return pool.is_ended or self.is_connection_closed(connection)

    async def _connect(self, pool: ConnectionPool[ConnT]) -> ConnT:
        """A new connection, if anybody still waits for it."""
        pool.connecting += 1
        try:
            connection = await self._connect_or_free(pool.target, pool.options)
        finally:
            pool.connecting -= 1
        if pool.is_ended:
            self.terminate_connection(connection)
            raise ConnectionError("the pool has ended")
        return connection

    async def _connect_or_free(self, target: Target, options: dict[str, Any]) -> ConnT:
        """A driver may forget that it was cancelled (`asyncio.wait_for` does, on Python 3.11), and
        what it had opened when it failed may hang on its exception's traceback."""
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        try:
            connection = await self.connect(target, **options)
        except BaseException as exc:
            clear_frames(exc.__traceback__)
            raise
        if task is not None and task.cancelling() > before:
            self.terminate_connection(connection)
            # A scope of anyio's knows its own cancellations only, and gives one in each turn.
            await asyncio.sleep(0)
            raise asyncio.CancelledError
        return connection

    # Connections

    def terminate_connection(self, connection: ConnT, /) -> None:
        fileno = self._fileno(connection)
        if fileno >= 0:
            shut_down(fileno)
        # A task that waits on it reads the end of the stream, and the driver closes it then. To
        # close it here would free a descriptor which the event loop still watches.
        if not self.is_busy(connection):
            self.close(connection)

    def _cut_off(self, connection: ConnT) -> None:
        """Terminate a connection on which the running task waits, which is about to hear of it."""
        fileno = self._fileno(connection)
        if fileno >= 0:
            shut_down(fileno)
        self.close(connection)

    def is_connection_closed(self, connection: ConnT, /) -> bool:
        """As far as this machine knows: also where the server's last words have come, and the end
        of the stream has not."""
        fileno = self._fileno(connection)
        if fileno < 0 or hung_up(fileno):
            return True
        return not self.is_busy(connection) and says_good_bye(fileno)

    def _fileno(self, connection: ConnT) -> int:
        try:
            return self.fileno(connection)
        except Exception:
            return -1

    async def fetch_scalar(self, connection: ConnT, query: str, /) -> object:
        cut = partial(self._cut_off, connection)
        return await cut_first(self.query(connection, query), cut)

    # The monitor's

    async def reserve(self, target: Target, /, **options: Any) -> "PooledReserved[ConnT]":
        self.check_options(target, **options)
        _, _, own = _sizes(options)
        return PooledReserved(self, await self._connect_or_free(target, own))


class PooledReserved(Generic[ConnT]):
    """`ReservedConnection` by the verbs of a `PooledAdapter`."""

    def __init__(self, adapter: PooledAdapter[ConnT], connection: ConnT) -> None:
        self._adapter = adapter
        self._connection = connection
        self._tells: TellsRecovery[ConnT] | None = (
            adapter if isinstance(adapter, TellsRecovery) else None
        )
        self._is_apart = False
        """Whether the session's defaults are in the way, as far as is known: a standby refuses
        serializable transactions, and a timeout may be too short for a check."""

    async def fetch_scalar(self, query: str, /) -> object:
        if self._is_apart:
            return await self._fetch_apart(query)
        try:
            return await self._fetch(query)
        except Exception as exc:
            code = self._adapter.sqlstate(exc)
            if code not in (_REFUSED, _CANCELLED) or self.is_closed():
                raise
            # Not where an administrator cancels: then there is no timeout.
            if code == _CANCELLED and await self._fetch("SHOW statement_timeout") == "0":
                raise
        answer = await self._fetch_apart(query)
        self._is_apart = True
        return answer

    async def _fetch_apart(self, query: str) -> object:
        """In a transaction that these defaults do not reach: four round trips."""
        try:
            await self._fetch(_BEGIN)
            await self._fetch(_NO_TIMEOUT)
            answer = await self._fetch(query)
        except BaseException:
            if not self.is_closed():
                try:
                    await self._fetch("ROLLBACK")
                except BaseException:
                    self.terminate()
                    raise
            raise
        await self._fetch("COMMIT")
        return answer

    async def _fetch(self, query: str) -> object:
        return await self._adapter.fetch_scalar(self._connection, query)

    def in_recovery(self) -> bool | None:
        return None if self._tells is None else self._tells.in_recovery(self._connection)

    def is_closed(self) -> bool:
        return self._adapter.is_connection_closed(self._connection)

    def terminate(self) -> None:
        self._adapter.terminate_connection(self._connection)


def _sizes(options: dict[str, Any]) -> tuple[int, int, dict[str, Any]]:
    """The sizes, and the other options. `ValueError`, `TypeError`: not good ones."""
    own = dict(options)
    sizes = {"min_size": own.pop("min_size", 1), "max_size": own.pop("max_size", 10)}
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"{name} must be a whole number, not {type(size).__name__}")
    if sizes["max_size"] < 1:
        raise ValueError(f"max_size must be at least 1: {sizes['max_size']}")
    if not 0 <= sizes["min_size"] <= sizes["max_size"]:
        raise ValueError(f"min_size must be from 0 to max_size: {sizes['min_size']}")
    return sizes["min_size"], sizes["max_size"], own
