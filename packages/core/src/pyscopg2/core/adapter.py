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
from typing import Any, Protocol, TypeVar, runtime_checkable

from pyscopg2.core.dsn import Target

PoolT = TypeVar("PoolT")
ConnT = TypeVar("ConnT")


class Adapter(Protocol[PoolT, ConnT]):
    """A driver, as the core sees it."""

    def create_pool(self, target: Target, /, **options: Any) -> Awaitable[PoolT]:
        """Open a pool to this one host, with the user's `pool_factory_kwargs` as ``options``.

        The pool has room for one connection more than the user's minimum and maximum: the monitor
        keeps that one. A host that refuses (down, wrong password) raises the driver's own error
        here, and nothing is left open. Cancelled when it takes longer than the refresh timeout.
        `TypeError` or `ValueError`: an option is wrong, or a parameter of the DSN that the driver
        cannot honour.
        """
        ...

    def close_pool(self, pool: PoolT, /) -> Awaitable[None]:
        """Close a pool, none of whose connections are out any more."""
        ...

    def terminate_pool(self, pool: PoolT, /) -> Awaitable[None]:
        """End a pool and all its connections, without waiting for the server or for users.

        Called on pools of frozen hosts, with connections out, and on pools already closed; right
        after `create_pool`, and while acquires connect. Those end, too: the core cancels them.
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
        """Give a connection back, broken and terminated ones included: its place becomes free.

        A transaction that was left open does not reach the next user. Given back twice, it frees
        nothing twice. Waits for this connection's server at most, never for acquires that connect
        meanwhile. Runs in the user's task: cancelled, too, it leaves the place free, be it that
        the driver goes on by itself or that the connection is cut off.
        """
        ...

    def terminate_connection(self, connection: ConnT, /) -> None:
        """Cut the connection off, without a word to the server.

        At once, from any state, twice, and also while another task waits for it: that task's query
        then fails. Nothing that follows on this connection may look like a success, a commit least
        of all: neither `end_block` nor the driver's own, also after `release_to_pool`.
        """
        ...

    def end_block(self, connection: ConnT, exc: BaseException | None, /) -> Awaitable[None] | None:
        """End an ``async with`` block as the driver's own pool does, before the release.

        None: there is nothing to be done.

        ``exc`` is what the block raised. A driver whose block commits, commits here, and raises
        where that cannot be done.
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

    def get_pool_freesize(self, pool: PoolT, /) -> int:
        """How many connections a user could take now, opened or not yet."""
        ...

    def get_pool_maxsize(self, pool: PoolT, /) -> int | None:
        """The most connections that the pool ever holds, the monitor's included; None: no limit."""
        ...

    def is_connection_closed(self, connection: ConnT, /) -> bool:
        """Whether the connection is known to be closed. Asks the driver, never the server.

        True after `terminate_connection`, and after an error that broke the connection.
        """
        ...


@runtime_checkable
class ChecksOptions(Protocol):
    """What an adapter may add: what its driver refuses is known when the manager is constructed."""

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


_PoolT = TypeVar("_PoolT", contravariant=True)
_ConnT = TypeVar("_ConnT", contravariant=True)


@runtime_checkable
class ReturnsEarly(Protocol[_PoolT, _ConnT]):
    """What an adapter may add: its driver's pool has a connection back some turns of the event loop
    before the driver says so. Who waits for one need not wait for these."""

    def return_to_pool(
        self, connection: _ConnT, pool: _PoolT, returned: Callable[[], None], /
    ) -> Awaitable[None]:
        """`release_to_pool`, which calls ``returned`` in the very step of the event loop in which
        the connection comes free, just before or after.

        It says so of each that comes back sound: where it does not, the place is free when the
        awaitable ends, and the host is suspected. Called again, or after that, ``returned`` does
        nothing. The core asks for this only while somebody waits, and `release` has no arguments.
        """
        ...
