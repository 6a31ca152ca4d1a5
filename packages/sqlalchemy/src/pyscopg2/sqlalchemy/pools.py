"""SQLAlchemy's pools, and what they do not tell of themselves."""

from __future__ import annotations

import asyncio
import inspect
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

from sqlalchemy.pool import ConnectionPoolEntry, Pool, QueuePool

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect


class NotAtHand(Exception):  # noqa: N818  it is a turn of events, not an error
    """There is no idle connection that is alive: to take one is to wait."""


class Attempt:
    """What came of one acquire so far, where it was not just handed an idle connection."""

    def __init__(self) -> None:
        self.opened: WeakSet[Any] = WeakSet()
        """The driver's connections that it has opened."""
        self.ready = True
        """Whether the last of these is set up: the listeners of "connect" have ended."""
        self.refused = False
        """Whether a listener of "checkout" has refused a connection, as SQLAlchemy lets it."""
        self.failed = False
        """Whether a listener of "checkout" has raised something else."""
        self.broken = False
        """Whether the last connection that was refused, or that it failed with, was broken."""
        self.stale = False
        """Whether one of these was broken that had been idle before."""


class Watch:
    """What SQLAlchemy does not tell of a pool. It has no reference to the pool, which has one to
    it: so it is there as long as the pool is, also when both are garbage."""

    def __init__(self) -> None:
        self.slots: int | None = None
        """The most connections that the pool ever holds; None: no limit."""
        self.connections: WeakSet[Any] = WeakSet()
        """The driver's connections, whoever has them: those that are out, and those that a
        cancelled connect has left behind, too."""
        self.trying = False
        """Whether it is created just now: nobody else uses the pool."""
        self.is_prompt = False
        """Whether SQLAlchemy hands out an idle connection, takes it back, and parts from a dead one
        without waiting for anything."""
        self.at_once = False
        """Whether one is taken just now by somebody who does not wait."""
        # Not by a context variable: tasks may share a context.
        self.attempts: dict[asyncio.Task[Any] | None, Attempt] = {}
        """What came of the acquires that tasks are at, where there is anything to tell. Those who
        connect by hand, past the adapter, leave theirs here."""

    def end(self) -> Attempt | None:
        """The acquire of the task that runs has ended: what came of it; None where it was just
        handed an idle connection, or not even that."""
        return self.attempts.pop(asyncio.current_task(), None)

    @property
    def attempt(self) -> Attempt:
        """Of the task that runs."""
        me = asyncio.current_task()
        attempt = self.attempts.get(me)
        if attempt is None:
            for task in [task for task in self.attempts if task is not None and task.done()]:
                del self.attempts[task]
            self.attempts[me] = attempt = Attempt()
        return attempt

    def note(self, connection: Any) -> None:
        """The driver has opened a connection; nobody has seen it yet."""
        self.connections.add(connection)
        attempt = self.attempt
        attempt.opened.add(connection)
        attempt.ready = False


class Watched(Pool):
    """A pool that is watched: the first base of what `watched` makes."""

    def __init__(
        self, creator: Callable[..., DBAPIConnection], dialect: Dialect, **kw: Any
    ) -> None:
        self.watch = watch = Watch()
        with_entry = _takes_entry(creator)

        def open_connection(connection_record: ConnectionPoolEntry) -> DBAPIConnection:
            if watch.at_once:
                raise NotAtHand
            adapted = creator(connection_record) if with_entry else creator()
            watch.note(dialect.get_driver_connection(adapted))
            return adapted

        self._open = open_connection
        super().__init__(cast(Any, open_connection), dialect=dialect, **kw)

    def open(self, entry: ConnectionPoolEntry) -> DBAPIConnection:
        """Open a connection as for the pool, but apart from it: no listener of the pool's hears of
        it. Within a greenlet, as all of a pool's methods."""
        return self._open(entry)

    def recreate(self) -> Pool:
        """As SQLAlchemy does where an engine is disposed of: what is known goes on."""
        fresh = cast(Watched, super().recreate())
        fresh.watch = self.watch
        return fresh


@cache
def watched(poolclass: Any) -> type[Watched]:
    """The class, with its pools watched. All else is as it was, and so is the name, by which the
    pool's logger is known."""
    names = {name: getattr(poolclass, name) for name in ("__module__", "__qualname__", "__doc__")}
    return cast("type[Watched]", type(poolclass.__name__, (Watched, poolclass), names))


def watch_of(pool: Pool) -> Watch:
    """What is known of a pool that is `watched`."""
    return cast(Watched, pool).watch


def takes_at_once(engine: Engine) -> bool:
    """Whether an idle connection can be had without waiting, and without a greenlet: there is one,
    and no listener but the adapter's, which might ask the server."""
    pool = cast(Watched, engine.pool)
    watch = pool.watch
    if not watch.is_prompt or not isinstance(pool, QueuePool) or not pool.checkedin():
        return False
    # With all of them open, SQLAlchemy waits for one also where there is an idle one.
    if watch.slots is not None and pool.size() + pool.overflow() >= watch.slots:
        return False
    return len(pool.dispatch.checkout) == 1 and not engine.dispatch.engine_connect


def gives_back_at_once(engine: Engine) -> bool:
    """Whether the pool takes one back, where nothing is left to roll back, without waiting: it has
    room for it, and no listener."""
    pool = cast(Watched, engine.pool)
    if not pool.watch.is_prompt or not isinstance(pool, QueuePool):
        return False
    # SQLAlchemy has 0 for no limit.
    has_room = pool.checkedin() < pool.size() or pool.size() == 0
    return has_room and not pool.dispatch.reset and not pool.dispatch.checkin


class Apart(ConnectionPoolEntry):
    """What listeners of "do_connect" get for a connection that belongs to no pool."""

    dbapi_connection = None
    driver_connection = None

    def __init__(self) -> None:
        self._info: dict[Any, Any] = {}
        self._record_info: dict[Any, Any] = {}

    @property
    def info(self) -> dict[Any, Any]:
        return self._info

    @property
    def record_info(self) -> dict[Any, Any] | None:
        return self._record_info

    @property
    def in_use(self) -> bool:
        return True

    def close(self) -> None:
        """There is nothing yet to close."""

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """There is nothing yet to invalidate."""


def _takes_entry(creator: Callable[..., object]) -> bool:
    """Whether it wants to know for which of a pool's entries it connects, by SQLAlchemy's rules."""
    try:
        parameters = inspect.signature(creator).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [
        parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if [parameter.name for parameter in positional] == ["connection_record"]:
        return True
    return sum(parameter.default is parameter.empty for parameter in positional) == 1
