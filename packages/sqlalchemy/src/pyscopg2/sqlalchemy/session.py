"""Sessions on the right host: what `async_sessionmaker` is to an engine, for a manager."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar, overload

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from pyscopg2.base import BasePoolManager, WalPosition
from pyscopg2.sqlalchemy.engine import Engines

SessionT = TypeVar("SessionT", bound=AsyncSession)

_OURS = frozenset({"bind", "binds", "twophase"})


class SessionMaker(Generic[SessionT]):
    """Makes sessions for masters and for replicas, as each call says.

    ::

        sessions = SessionMaker(manager, expire_on_commit=False)

        async with sessions.master() as session:
            session.add(note)
            await session.commit()

        async with sessions.replica(max_lag=1) as session:
            notes = await session.scalars(select(Note))

    Where one kind is enough, SQLAlchemy's own does the same:
    ``async_sessionmaker(manager.engine(), expire_on_commit=False)``.

    The session is an ordinary `AsyncSession`, or of your own class: it takes a connection when a
    transaction begins, with its first statement, and gives it back when that ends. The next
    transaction may be on another host; none ever moves. When its host is lost, the next statement,
    flush or commit raises `DBAPIError`, or another `SQLAlchemyError`, as on any lost connection.
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
            ``twophase``: connections come from the manager.
        """
        if misplaced := _OURS & options.keys():
            raise TypeError(f"{', '.join(sorted(misplaced))}: connections come from the manager")
        self._class: type[SessionT] = class_
        self._options = options
        class_(**options)  # a wrong option is known now
        self._engines = Engines(manager)

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
    ) -> SessionT:
        """A session, for ``async with`` or to be closed by you. Its transactions get connections
        as `BasePoolManager.acquire` would, with these arguments; likewise the errors of wrong
        ones."""
        engine = self._engines.engine(
            read_only=read_only,
            fallback_master=fallback_master,
            master_as_replica_weight=master_as_replica_weight,
            timeout=timeout,
            max_lag=max_lag,
            after=after,
            patience=patience,
        )
        return self._class(bind=engine, **self._options)

    def master(self, timeout: float | None = None) -> SessionT:
        """A session on masters."""
        return self(timeout=timeout)

    def replica(
        self,
        fallback_master: bool | None = None,
        master_as_replica_weight: float | None = None,
        timeout: float | None = None,
        *,
        max_lag: float | None = None,
        after: WalPosition | str | None = None,
        patience: float | None = None,
    ) -> SessionT:
        """A session on replicas. A replica refuses writes; a master in its place does not."""
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
