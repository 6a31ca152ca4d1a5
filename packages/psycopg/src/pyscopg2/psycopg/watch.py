"""What a psycopg pool does not tell of itself: its connections, its tasks, its failures."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

from psycopg import AsyncConnection, OperationalError, ProgrammingError
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from pyscopg2.psycopg.steps import cut_first

Connection: TypeAlias = AsyncConnection[TupleRow]
Pool: TypeAlias = AsyncConnectionPool[Connection]

Hook: TypeAlias = Callable[[Connection], Awaitable[None]]

GRACE = 0.02
"""Seconds for idle workers to end by themselves. One that is cancelled while it is told to stop
makes the pool's `close` believe that it was cancelled itself."""

PATIENCE = 1.0
"""Seconds for workers to end when cancelled. They do at once, unless a hook of the user's does
not."""


class Watch:
    """Follows one pool through the hooks that the driver offers, from its opening to its end."""

    def __init__(
        self,
        cut: Callable[[Connection], None],
        cut_off: Callable[[Connection], None],
        is_closed: Callable[[Connection], bool],
        configure: Hook | None = None,
        check: Hook | None = None,
        reset: Hook | None = None,
        reconnect_failed: Callable[[Pool], Any] | None = None,
    ) -> None:
        """``cut`` ends a connection; ``cut_off`` one that a hook is using, where that is about to
        be cancelled; ``is_closed`` tells whether one has ended. The others are the user's hooks."""
        self._cut = cut
        self._cut_off = cut_off
        self._is_closed = is_closed
        self._configure = configure
        self._check = check
        self._reset = reset
        self._reconnect_failed = reconnect_failed
        self._connections: WeakSet[Connection] = WeakSet()
        """All that were opened for the pool, wherever they are."""
        self._ready: WeakSet[Connection] = WeakSet()
        """Those that went into it."""
        self._on_the_way_back: WeakKeyDictionary[Connection, asyncio.Future[None]] = (
            WeakKeyDictionary()
        )
        """Those that a worker resets, or will, and what is done when it has."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self.acquiring: set[asyncio.Future[Any]] = set()
        """What those wait for to whom the pool gives a connection as soon as it has one."""
        self.failures = 0
        self._trying = asyncio.Lock()
        self._tries = 0
        self._refusal: Exception | None = None
        """What the last try has come to."""

    @property
    def hooks(self) -> dict[str, Any]:
        """The pool's options of those names."""
        hooks: dict[str, Any] = {
            "configure": self.configure,
            "check": self.check,
            "reconnect_failed": self.reconnect_failed,
        }
        if self._reset is not None:  # with a reset, the pool leaves each return to its workers
            hooks["reset"] = self.reset
        return hooks

    def count_out(self, pool: Pool) -> int:
        """How many connections are out. The pool's own size counts those on the way as well."""
        known = self._ready - self._on_the_way_back.keys()
        opened = sum(not connection.closed for connection in known)
        return max(0, opened - pool.get_stats()["pool_available"])

    def given_back(self, connection: Connection) -> asyncio.Future[None] | None:
        """The pool has taken a connection back. What to wait for, where a worker resets it first:
        it is done, too, when the connection is terminated."""
        if self._reset is None:
            return None
        back: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if connection.closed:
            back.set_result(None)  # no worker resets that
        self._on_the_way_back[connection] = back
        return back

    def terminated(self, connection: Connection) -> None:
        """Nobody waits for its reset any longer: the worker may not get that far."""
        _settle(self._on_the_way_back.get(connection))

    def is_on_the_way_back(self, connection: Connection) -> bool:
        return self._reset is not None and connection in self._on_the_way_back

    async def try_for_all(self, connect: Callable[[], Awaitable[None]]) -> None:
        """Await ``connect()``, or what somebody else's has come to who was at it, or is first.

        A host that refuses one connect is not asked again by each of those who wait for it. Where
        the one who connects is cancelled, the next one does.
        """
        tries = self._tries
        async with self._trying:
            if tries == self._tries:
                self._refusal = None
                try:
                    await connect()
                except Exception as exc:
                    self._refusal = exc
                self._tries += 1
            if self._refusal is not None:
                raise self._refusal

    # The hooks

    async def configure(self, connection: Connection) -> None:
        """A new connection."""
        self._connections.add(connection)
        await self.try_out(connection)
        self._ready.add(connection)

    async def try_out(self, connection: Connection) -> None:
        """Run the user's hook, as the pool does: `ProgrammingError` where it leaves a transaction
        open, which the pool would only log, and connect again for ever."""
        if self._configure is not None:
            await cut_first(self._configure(connection), self._cut_off, connection)
            if connection.info.transaction_status is not TransactionStatus.IDLE:
                raise ProgrammingError("the pool's configure function left a transaction open")

    async def check(self, connection: Connection) -> None:
        """A connection that the pool is about to give to somebody. It takes another one where this
        raises, and the connection is closed."""
        if self._is_closed(connection):
            self._cut(connection)
            raise OperationalError("the server closed the connection while it was idle")
        if self._check is not None:
            await cut_first(self._check(connection), self._cut_off, connection)

    async def reset(self, connection: Connection) -> None:
        """A connection that a worker takes back."""
        try:
            if self._reset is not None:
                await self._reset(connection)
        finally:
            _settle(self._on_the_way_back.pop(connection, None))

    async def reconnect_failed(self, pool: Pool) -> None:
        """The pool has given up a connect: who waits for one does not wait any longer."""
        self.failures += 1
        for pending in self.acquiring:
            pending.cancel()
        if self._reconnect_failed is not None:
            result = self._reconnect_failed(pool)
            if inspect.isawaitable(result):
                await result

    # The tasks

    async def open(self, pool: Pool) -> None:
        """Open the pool; what it starts is known from now on."""
        keeping = self._keep(pool)
        self._keeper = asyncio.get_running_loop().create_task(keeping, name=f"{pool.name}-keeper")
        # A task that is cancelled before its first step does not run at all.
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._keeper.cancel()
            raise
        others = asyncio.all_tasks()
        await pool.open()
        self._tasks = asyncio.all_tasks() - others

    async def end(self) -> None:
        """End the pool, its tasks and its connections, those that are out included."""
        if self._keeper is not None and not self._keeper.done():
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))

    async def _keep(self, pool: Pool) -> None:
        """Wait to be cancelled, by `end` or because the event loop ends, and end the pool then.

        The pool's workers swallow a cancellation that comes while they connect, so without this a
        program that forgets to close would never end.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.create_future()
        finally:
            for connection in list(self._connections):
                self._cut(connection)
            loop.call_later(GRACE, self._cancel_tasks)
            try:
                # Its first step tells the workers to stop, and does not suspend.
                await pool.close(timeout=PATIENCE)
            except asyncio.CancelledError:
                pass  # a worker's, or a second one of ours: either way this ends cancelled
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=PATIENCE)
            # A cancelled task keeps its traceback, and with it the socket that it was connecting.
            self._tasks.clear()

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()


def _settle(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
