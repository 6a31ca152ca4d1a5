"""What the core asks of a driver.

An adapter is any object with these methods: the Protocol is structural, nothing has to be
inherited. Every verb is called from the event loop's thread. A verb that returns an awaitable may
be an ``async def``, return a future, or hand on whatever awaitable the driver itself returns.

These rules hold for all of them:

- An awaitable that is cancelled, or that fails, leaves nothing behind: no connection out, no task,
  no socket for the garbage collector. Cancelled, it raises `CancelledError`, also where what it
  waited for has come in that very moment; and it raises that for no other reason. A query that is
  cancelled may cost its connection, which is closed from then on.
- Cancelling alone may take a driver long (some ask the server to agree, and a frozen one does not
  answer). The core does not rely on it: it calls `terminate_connection`, whereupon whatever is
  pending on that connection must fail by itself, at once.
- The driver's errors pass through unchanged; the core asks `sqlstate` what they mean.
- Pools and connections are told apart by identity. They need not be hashable.
"""

from collections.abc import Awaitable, Callable, Container
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

from pyscopg2.core.dsn.target import Target

PoolT = TypeVar("PoolT")
ConnT = TypeVar("ConnT")


class Adapter(Protocol[PoolT, ConnT]):
    """A driver, as the core sees it."""

    def create_pool(self, target: Target, /, **options: Any) -> Awaitable[PoolT]:
        """Open a pool to this one host, with the user's `pool_factory_kwargs` as ``options``.

        The pool has room for one connection more than the user's minimum and maximum: the monitor
        keeps that one. (Not so with `Reserves`: that makes a connection of its own for it.) A host
        that refuses (down, wrong password) raises the driver's own error
        here, and nothing is left open. Cancelled when it takes longer than the refresh timeout.
        `TypeError` or `ValueError`: an option is wrong, or a parameter of the DSN that the driver
        cannot honour.
        """
        ...

    def terminate_pool(self, pool: PoolT, /) -> Awaitable[None]:
        """End a pool and all that it has open, without waiting for the server or for users.

        Called on pools of frozen hosts, on pools already closed, again, and right after
        `create_pool`. Connections that are out have been terminated by the core before, one by one,
        also in an event loop's last moments; some are given back only later. Acquires that connect
        meanwhile end, too: the core cancels them.
        """
        ...

    def acquire_from_pool(self, pool: PoolT, /, **kwargs: Any) -> Awaitable[ConnT]:
        """Take a connection; ``kwargs`` are what the user gave to `acquire`.

        The core never takes more than the maximum, so nobody queues inside the driver. Not one
        that the server has closed while it was idle, as far as this machine knows.
        `TypeError`: the driver knows no such argument.
        """
        ...

    def release_to_pool(self, connection: ConnT, pool: PoolT, /, **kwargs: Any) -> Awaitable[None]:
        """Give a connection back, broken and terminated ones included: its slot becomes free.

        A transaction that was left open does not reach the next user. Given back twice, it frees
        nothing twice. Waits for this connection's server at most, never for acquires that connect
        meanwhile. Runs in the user's task: cancelled, too, it leaves the slot free, be it that
        the driver goes on by itself or that the connection is cut off.
        """
        ...

    def terminate_connection(self, connection: ConnT, /) -> None:
        """Cut the connection off, without a word to the server.

        At once, from any state, twice, and also while another task waits for it: that task's query
        then fails. Nothing that follows on this connection may look like a success, a commit least
        of all: neither `EndsBlocks.end_block` nor the driver's own, also after `release_to_pool`.
        """
        ...

    def fetch_scalar(self, connection: ConnT, query: str, /) -> Awaitable[object]:
        """The first column of the first row. Leaves no transaction open, also when it fails.

        A query that the server cancels (SQLSTATE 57014) fails with the driver's error.
        """
        ...

    def sqlstate(self, exc: BaseException, /) -> str | None:
        """The five characters that the server sent with this very error, or None.

        Reads this exception only; the core walks `__cause__` and `__context__` itself.
        """
        ...

    def get_pool_maxsize(self, pool: PoolT, /) -> int | None:
        """The most connections that the pool ever holds, the monitor's included where that is taken
        from it. Asked once for each pool, when it is open; it does not change. Where this raises,
        the pool is terminated, and the check has failed.

        The core counts users' connections up to it, and has those who come later wait, so that
        nobody waits within the driver. None: the pool has no limit, nor has the core then; never
        for a pool that has one.
        """
        ...

    def is_connection_closed(self, connection: ConnT, /) -> bool:
        """Whether the connection is known to be closed. Asks the driver, never the server.

        True after `terminate_connection`, and after an error that broke the connection.
        """
        ...


_PoolT = TypeVar("_PoolT", contravariant=True)
_ConnT = TypeVar("_ConnT", contravariant=True)


@runtime_checkable
class EndsBlocks(Protocol[_ConnT]):
    """What an adapter may add: its driver's ``async with`` blocks commit, or roll back."""

    def end_block(self, connection: _ConnT, exc: BaseException | None, /) -> Awaitable[None] | None:
        """End an ``async with`` block as the driver's own pool does, before the release.

        None: there is nothing to be done, as where an adapter has no such verb.

        ``exc`` is what the block raised. A driver whose block commits, commits here, and raises
        where that cannot be done.
        """
        ...


@runtime_checkable
class ClosesPools(Protocol[_PoolT]):
    """What an adapter may add: it takes leave of the server where a pool ends in peace."""

    def close_pool(self, pool: _PoolT, /) -> Awaitable[None]:
        """Close a pool, none of whose connections are out any more.

        It may talk to the server: unanswered for the refresh timeout, `terminate_pool` follows,
        which is called at once where an adapter has no such verb.
        """
        ...


@runtime_checkable
class ChecksOptions(Protocol):
    """What an adapter may add: what its driver refuses is known when the manager is constructed.

    Without it, `create_pool` refuses, and `ready` and `acquire` tell that."""

    def check_options(self, target: Target, /, **options: Any) -> None:
        """See whether `create_pool` could take these arguments, without connecting.

        `TypeError` for an option that the driver does not know, `ValueError` for a value, or a
        parameter of the DSN, that it would refuse.
        """
        ...


@runtime_checkable
class TakesExtraParams(Protocol):
    """What an adapter may add: its driver takes parameters in a DSN that libpq does not know."""

    @property
    def extra_params(self) -> bool | Container[str]:
        """All of them (asyncpg makes them settings of the session), or those contained."""
        ...


@runtime_checkable
class ReturnsEarly(Protocol[_PoolT, _ConnT]):
    """What an adapter may add: its driver's pool has a connection back some turns of the event loop
    before the driver says so. An acquire that waits for one need not wait for these."""

    def return_to_pool(
        self, connection: _ConnT, pool: _PoolT, returned: Callable[[], None], /
    ) -> Awaitable[None]:
        """`release_to_pool`, which calls ``returned`` in the very step of the event loop in which
        the connection comes free, just before or after.

        It says so of each that comes back sound: where it does not, the slot is free when the
        awaitable ends, and the host is suspected. Called again, or after that, ``returned`` does
        nothing. The core asks for this only while somebody waits, and `release` has no arguments.
        """
        ...


@runtime_checkable
class CountsIdle(Protocol[_PoolT]):
    """What an adapter may add: its driver tells how many connections nobody uses."""

    def get_pool_idle_size(self, pool: _PoolT, /) -> int:
        """How many of the pool's connections are open and idle. Asked where somebody wants to see
        numbers, by any thread; must not wait."""
        ...

    def get_pool_idle_limits(self, pool: _PoolT, /) -> tuple[int, int]:
        """How many idle connections the pool keeps at least, and at most."""
        ...


class ReservedConnection(Protocol):
    """The connection that a monitor keeps to ask its host for its role."""

    def fetch_scalar(self, query: str, /) -> Awaitable[object]:
        """The first column of the first row, as the server wrote it: a string.

        What users set up does not change it: codecs, type adapters, row factories, encodings,
        loggers, statement caches, and the session's defaults. Where the server's default isolation
        is serializable, which a standby refuses, it is read in another one. One round trip
        otherwise. Leaves no transaction open. The server's errors come as the driver's, never as
        `CancelledError`. Cancelled, it may cost the connection.
        """
        ...

    def in_recovery(self) -> bool | None:
        """As `TellsRecovery.in_recovery`, of this connection."""
        ...

    def is_closed(self) -> bool:
        """Whether it is known to be closed. Asks the driver and the kernel, never the server."""
        ...

    def terminate(self) -> None:
        """Cut it off at once, from any state, twice, without a word to the server. A query that
        waits on it in another task fails."""
        ...


@runtime_checkable
class Reserves(Protocol):
    """What an adapter may add: a connection apart from the pool, for the host's checks.

    A check is no request of a user's then: no hook of the pool's sees it. Without this, the monitor
    takes its connection from the pool, which has to have room for one more.
    """

    def reserve(self, target: Target, /, **options: Any) -> Awaitable[ReservedConnection]:
        """Connect to this one host, with what the user's `pool_factory_kwargs` say of connecting.

        What they say of the pool, of each acquire, or of each of the pool's connections, is left
        out. Fails, and is cancelled, as `create_pool`. With this verb `create_pool` makes pools of
        the user's own sizes: the reserved connection is not among them.
        """
        ...


@runtime_checkable
class TellsRecovery(Protocol[_ConnT]):
    """What an adapter may add: its driver keeps what servers report by themselves."""

    def in_recovery(self, connection: _ConnT, /) -> bool | None:
        """Whether the server of this connection was in recovery when it last answered.

        PostgreSQL 14 and later report it with the answer to a query (``in_hot_standby``, manual,
        55.2.7 "Asynchronous Operations"). None where nothing was reported. Asks nobody.
        """
        ...


@runtime_checkable
class RunsTransactions(Protocol[_ConnT]):
    """What an adapter may add: its driver's transactions, for `BasePoolManager.attempts`."""

    def transaction(self, connection: _ConnT, /) -> AbstractAsyncContextManager[object]:
        """A transaction around a block, which the driver knows of, as its user's own would be.

        Entered, it has begun on the server, or begins with the first statement. Left without an
        error, it commits, and raises where the server does not say that it has, above all on a
        connection that is closed. Left with one, it rolls back, and lets that error pass, a
        cancellation too; it may raise another where it can't.
        `ValueError`: the connection is set to commit each statement by itself, and the driver's
        transaction would not change that.
        """
        ...


@runtime_checkable
class TellsLoss(Protocol):
    """What an adapter may add: it recognises its driver's errors of a connection that was lost."""

    def is_lost_error(self, exc: BaseException, /) -> bool:
        """Whether a connection was lost, or closed, or terminated, by this very error.

        Asked only of errors that have no `sqlstate`, and are no `ConnectionError`. Reads this
        exception only, as `sqlstate`. What tells of a timeout, or of a mistake in using the driver,
        does not count.
        """
        ...


class HookError(Exception):
    """What `acquire_from_pool` raises where a hook of the user's has failed, not the host.

    ``__cause__`` is the hook's own error, which is what the user gets: at once, since no other host
    would help.
    """
