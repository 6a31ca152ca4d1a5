"""What a psycopg pool does not tell of itself: its connections, its tasks, its failures."""

import asyncio
import inspect
import types
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

from psycopg import AsyncConnection, OperationalError, ProgrammingError
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from pyscopg2.core.adapter.cutting import cut_first
from pyscopg2.psycopg.cutting import PATIENCE, cut_off, is_closed
from pyscopg2.psycopg.steps import carry, in_a_task

Connection: TypeAlias = AsyncConnection[TupleRow]
Pool: TypeAlias = AsyncConnectionPool[Connection]

Hook: TypeAlias = Callable[[Connection], Awaitable[None]]

GRACE = 0.02
"""Seconds for idle workers to end by themselves. One that is cancelled while it is told to stop
makes the pool's `close` believe that it was cancelled itself."""


class Watch:
    """Follows one pool through the hooks that the driver offers, from its opening to its end.

    It does not refer to the pool, which it would keep alive.
    """

    def __init__(
        self,
        cut: Callable[[Connection], None],
        connect: Callable[[Hook], Awaitable[None]],
        configure: Hook | None = None,
        check: Hook | None = None,
        reset: Hook | None = None,
        reconnect_failed: Callable[[Pool], Any] | None = None,
    ) -> None:
        """``cut`` ends a connection; ``connect`` makes one as the pool does, awaits what it is
        given with it, and closes it again. The others are the user's hooks."""
        self._cut = cut
        self._connect = connect
        self._configure = configure
        self._check = check
        self._reset = reset
        self._reconnect_failed = reconnect_failed
        self._connections: WeakSet[Connection] = WeakSet()
        """All that were opened for the pool, wherever they are."""
        self._ready: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()
        """Those that went into it, each with its number."""
        self.opened = 0
        """How many that were."""
        self.returning: set[Connection] = set()
        """Those whose release waits for something."""
        self._resetting: WeakKeyDictionary[Connection, asyncio.Future[None]] = WeakKeyDictionary()
        """Those that a worker resets, or will, and what is done when it has."""
        self._discarded: WeakSet[Connection] = WeakSet()
        """Those that came back closed. The pool would replace one again that comes back again."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._ending = False
        self._acquiring: set[asyncio.Future[Any]] = set()
        """What those wait for to whom the pool gives a connection as soon as it has one."""
        self.taking = False
        """The pool takes a step for an acquire of ours, which sees to the check by itself."""
        self.failures = 0
        self._trying = asyncio.Lock()
        self._tries = 0
        self._refusal: Exception | None = None
        """What the last try has come to, while somebody waits to hear it."""
        self._listeners = 0
        """How many do."""

    @property
    def hooks(self) -> dict[str, Any]:
        """The pool's options of those names."""
        hooks: dict[str, Any] = {
            "configure": self.configure,
            "reconnect_failed": self.reconnect_failed,
        }
        if self._check is not None:
            hooks["check"] = self.check
        if self._reset is not None:  # with a reset, the pool leaves each return to its workers
            hooks["reset"] = self.reset
        return hooks

    @property
    def checks(self) -> bool:
        """Whether the user has a hook for it."""
        return self._check is not None

    def is_among_first(self, connection: Connection, opened: int) -> bool:
        """Whether it is one of the first so many that went into the pool."""
        return self._ready.get(connection, 0) <= opened

    # Giving back

    def has_back(self, connection: Connection) -> bool:
        """Whether it was given back, or is on its way. The pool itself notices that of a sound
        connection alone, and when it has it."""
        return (
            connection in self.returning
            or (self._reset is not None and connection in self._resetting)
            or (connection.closed and connection in self._discarded)
        )

    def given_back(self, connection: Connection) -> asyncio.Future[None] | None:
        """The pool has taken a connection back. What to wait for, where a worker resets it first:
        it is done, too, when the connection is terminated."""
        if connection.closed:
            self._discarded.add(connection)
            return None  # no worker resets that
        if self._reset is None:
            return None
        back: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._resetting[connection] = back
        return back

    def terminated(self, connection: Connection) -> None:
        """Nobody waits for its reset any longer: the worker may not get that far."""
        _settle(self._resetting.get(connection))

    # Waiting for a connection

    @types.coroutine
    def wait(
        self,
        steps: Generator[Any, Any, Connection],
        pending: Any,
        heard: list[asyncio.CancelledError],
    ) -> Generator[Any, Any, Connection]:
        """Go on with the ``steps`` of the pool's getconn, which wait for ``pending``, until the
        pool has a connection, or has failed to connect: that cancels what they wait for.

        They hear of the first cancellation only, and need a few turns of the event loop to end:
        with a second one meanwhile, on Python 3.11, they would leave a condition locked, for which
        the pool waits for ever then. They may end with a connection all the same: the caller has
        to see whether it was cancelled. All cancellations are in ``heard`` then.
        """
        taking = _Taking(self, steps)
        try:
            while True:
                waiting = pending
                if waiting is not None:
                    self._acquiring.add(waiting)
                try:
                    yield pending
                except asyncio.CancelledError as exc:
                    heard.append(exc)
                    pending = taking.throw(exc)
                    break
                finally:
                    self._acquiring.discard(waiting)
                pending = taking.send(None)
        except StopIteration as stop:
            connection: Connection = stop.value
            return connection
        late: Connection = yield from carry(taking, pending, heard.append)
        return late

    async def try_for_all(self) -> None:
        """Try to connect, or hear what somebody else's try has come to who was at it, or is first.

        A host that refuses one connect is not asked again by each of those who wait for it. Where
        the one who connects is cancelled, the next one does.
        """
        tries = self._tries
        self._listeners += 1
        try:
            async with self._trying:
                if tries == self._tries:
                    self._refusal = None
                    try:
                        await self._connect(self.try_out)
                    except Exception as exc:
                        self._refusal = exc
                    self._tries += 1
                if self._refusal is not None:
                    raise self._refusal
        finally:
            self._listeners -= 1
            if not self._listeners:
                # It refers to all that was called when it was raised.
                self._refusal = None

    # The hooks

    async def configure(self, connection: Connection) -> None:
        """A new connection."""
        self._connections.add(connection)
        await self.try_out(connection)
        self.opened += 1
        self._ready[connection] = self.opened

    async def try_out(self, connection: Connection) -> None:
        """Run the user's hook, as the pool does: `ProgrammingError` where it leaves a transaction
        open, which the pool would only log, and connect again for ever."""
        if self._configure is not None:
            await self._run(self._configure, connection)
            if connection.info.transaction_status is not TransactionStatus.IDLE:
                raise ProgrammingError("the pool's configure function left a transaction open")

    async def check(self, connection: Connection) -> None:
        """A connection that the pool is about to give to somebody who has asked it by hand. It
        takes another one where this raises."""
        if not self.taking:
            if is_closed(connection):
                self._cut(connection)
                raise OperationalError("the server closed the connection while it was idle")
            await self.ask(connection)

    async def ask(self, connection: Connection) -> None:
        """Run the user's check."""
        if self._check is not None:
            await self._run(self._check, connection)

    async def reset(self, connection: Connection) -> None:
        """A connection that a worker takes back."""
        try:
            if self._reset is not None:
                await self._reset(connection)
        finally:
            if connection.closed:
                self._discarded.add(connection)
            _settle(self._resetting.pop(connection, None))

    async def reconnect_failed(self, pool: Pool) -> None:
        """The pool has given up a connect: who waits for one does not wait any longer."""
        self.failures += 1
        for pending in self._acquiring:
            pending.cancel()
        if self._reconnect_failed is not None:
            result = self._reconnect_failed(pool)
            if inspect.isawaitable(result):
                await result

    async def _run(self, hook: Hook, connection: Connection) -> None:
        """In a task of its own: what times out in the hook, by `asyncio.timeout`, is the hook's
        affair, and no reason to cut its connection off."""
        await cut_first(in_a_task(hook(connection)), partial(cut_off, connection))

    # The tasks

    async def open(self, pool: Pool) -> None:
        """Open the pool; what it starts is known from now on."""
        keeping = self._keep(pool)
        self._keeper = asyncio.get_running_loop().create_task(keeping, name=f"{pool.name}-keeper")
        try:
            # A task that is cancelled before its first step does not run at all.
            await asyncio.sleep(0)
            await self._open(pool)
        except BaseException:
            self._keeper.cancel()
            raise

    @types.coroutine
    def _open(self, pool: Pool) -> Generator[Any, Any, None]:
        """What comes into being in a step of the pool's opening is its own."""
        steps = pool.open().__await__()
        while True:
            others = asyncio.all_tasks()
            try:
                pending = next(steps)
            except StopIteration:
                return
            finally:
                self._tasks |= asyncio.all_tasks() - others
            yield pending

    async def end(self) -> None:
        """End the pool, its tasks and its connections, those that are out included."""
        if self._keeper is not None and not self._keeper.done():
            if not self._ending:
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
            self._ending = True
            for connection in list(self._connections):
                self._cut(connection)
            loop.call_later(GRACE, self._cancel_tasks)
            try:
                # Its first step tells the workers to stop, and does not suspend.
                await pool.close(timeout=PATIENCE)
            except asyncio.CancelledError:
                pass  # a worker's, or a second one of ours: either way this ends cancelled
            try:
                if self._tasks:
                    await asyncio.wait(self._tasks, timeout=PATIENCE)
            finally:
                # A cancelled task keeps its traceback, and with it what it was at: the worker the
                # socket that it was connecting, and this one the pool.
                self._tasks.clear()
                self._keeper = None

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()


class _Taking:
    """The steps of the pool's getconn, each told to the watch."""

    def __init__(self, watch: Watch, steps: Generator[Any, Any, Connection]) -> None:
        self._watch = watch
        self._steps = steps

    def send(self, value: None) -> Any:
        self._watch.taking = True
        try:
            return self._steps.send(value)
        finally:
            self._watch.taking = False

    def throw(self, exc: BaseException) -> Any:
        self._watch.taking = True
        try:
            return self._steps.throw(exc)
        finally:
            self._watch.taking = False

    def close(self) -> None:
        self._steps.close()


def _settle(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
