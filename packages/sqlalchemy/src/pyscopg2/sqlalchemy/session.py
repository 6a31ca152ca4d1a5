"""Sessions on the right host: what `async_sessionmaker` is to an engine, for a manager."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar, overload

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from pyscopg2.base import BasePoolManager, WalPosition

SessionT = TypeVar("SessionT", bound=AsyncSession)

_OURS = frozenset({"bind", "binds", "twophase"})


class SessionMaker(Generic[SessionT]):
    """Makes sessions, each on a connection of its own to a master or a replica.

    ::

        sessions = SessionMaker(manager, expire_on_commit=False)

        async with sessions.master() as session:
            session.add(note)
            await session.commit()

        async with sessions.replica() as session:
            notes = await session.scalars(select(Note))

    The connection is acquired when the block is entered, kept through commits and rollbacks, and
    given back when the block ends: what was not committed is rolled back then, and the session
    closed. So a block that holds a session holds a slot in the pool, whether it uses it or not.

    The session is an ordinary `AsyncSession`, or of your own class, and its methods mean what they
    always mean. It stays on its host: when that is lost, the next statement, flush or commit
    raises, as on any lost connection; the next block gets another host. Of a connection that the
    manager has terminated, that is `DBAPIError`, or another `SQLAlchemyError`: never a commit
    that looks done.
    """

    @overload
    def __init__(
        self,
        manager: BasePoolManager[AsyncEngine, AsyncConnection],
        /,
        *,
        class_: type[SessionT],
        **options: Any,
    ) -> None: ...

    @overload
    def __init__(
        self: "SessionMaker[AsyncSession]",
        manager: BasePoolManager[AsyncEngine, AsyncConnection],
        /,
        **options: Any,
    ) -> None: ...

    def __init__(
        self,
        manager: BasePoolManager[AsyncEngine, AsyncConnection],
        /,
        *,
        class_: type[Any] = AsyncSession,
        **options: Any,
    ) -> None:
        """
        :param class_: `AsyncSession` or a subclass of it.
        :param options: for each session: ``expire_on_commit``, ``autoflush``, ``info`` and so on.
        :raises TypeError: an option that the class does not know, or ``bind``, ``binds`` or
            ``twophase``: the connection comes from the manager.
        """
        if misplaced := _OURS & options.keys():
            raise TypeError(f"{', '.join(sorted(misplaced))}: a session's connection is its bind")
        self._manager = manager
        self._class: type[SessionT] = class_
        # A transaction that somebody has begun on the connection before the session did is the
        # session's: its commit commits. SQLAlchemy's default would leave that to somebody else.
        self._options: dict[str, Any] = {"join_transaction_mode": "control_fully", **options}
        class_(**self._options)  # a wrong option is known now

    def __call__(
        self,
        read_only: bool = False,
        fallback_master: bool | None = None,
        master_as_replica_weight: float | None = None,
        timeout: float | None = None,
        *,
        max_lag: float | None = None,
        after: WalPosition | str | None = None,
        patience: float | None = None,
    ) -> AbstractAsyncContextManager[SessionT]:
        """A session for one ``async with`` block; see `BasePoolManager.acquire` for the arguments
        and the errors."""
        return self._session(
            read_only=read_only,
            fallback_master=fallback_master,
            master_as_replica_weight=master_as_replica_weight,
            timeout=timeout,
            max_lag=max_lag,
            after=after,
            patience=patience,
        )

    def master(self, timeout: float | None = None) -> AbstractAsyncContextManager[SessionT]:
        """A session on a master."""
        return self._session(timeout=timeout)

    def replica(
        self,
        fallback_master: bool | None = None,
        master_as_replica_weight: float | None = None,
        timeout: float | None = None,
        *,
        max_lag: float | None = None,
        after: WalPosition | str | None = None,
        patience: float | None = None,
    ) -> AbstractAsyncContextManager[SessionT]:
        """A session on a replica. A replica refuses writes; a master in its place does not."""
        return self(
            True,
            fallback_master,
            master_as_replica_weight,
            timeout,
            max_lag=max_lag,
            after=after,
            patience=patience,
        )

    @asynccontextmanager
    async def begin(
        self,
        read_only: bool = False,
        fallback_master: bool | None = None,
        master_as_replica_weight: float | None = None,
        timeout: float | None = None,
        *,
        max_lag: float | None = None,
        after: WalPosition | str | None = None,
        patience: float | None = None,
    ) -> AsyncGenerator[SessionT]:
        """A session with a transaction begun: committed at the end of the block, or rolled back
        where that raises, as by `async_sessionmaker.begin`."""
        made = self(
            read_only,
            fallback_master,
            master_as_replica_weight,
            timeout,
            max_lag=max_lag,
            after=after,
            patience=patience,
        )
        async with made as session, session.begin():
            yield session

    @asynccontextmanager
    async def _session(self, **request: Any) -> AsyncGenerator[SessionT]:
        connection: AsyncConnection | None = None
        session: SessionT | None = None
        try:
            async with self._manager.acquire(**request) as connection:
                session = self._class(bind=connection, **self._options)
                yield session
        finally:
            # The connection went first: what rolls back is its release, which takes no longer than
            # the manager allows. Then the session has nothing to say to the server.
            if session is not None and connection is not None:
                if connection.closed:
                    await session.close()
                else:
                    # Terminated; or being released elsewhere, since this task was cancelled.
                    session.expunge_all()
