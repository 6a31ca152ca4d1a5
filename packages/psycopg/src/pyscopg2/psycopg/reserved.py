"""The connection that a monitor keeps, apart from the pool and from what users set up."""

import asyncio
import inspect
from collections.abc import Mapping
from functools import partial
from traceback import clear_frames
from typing import Any, TypeVar

import psycopg
from psycopg.rows import tuple_row

from pyscopg2.core.adapter.cutting import cut_first
from pyscopg2.psycopg.cutting import AnyConnection, cut, cut_off, is_closed
from pyscopg2.psycopg.steps import bounded_by_psycopg, cancellations

ConnT = TypeVar("ConnT", bound=AnyConnection)

_OF_A_SESSION = {"autocommit", "context", "cursor_factory", "prepare_threshold", "row_factory"}
"""Arguments of `psycopg.AsyncConnection.connect` that say nothing of connecting."""

_FIRST = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; "
"""Statements that are sent as one are one transaction (manual, 55.2.2.1 "Multiple Statements in a
Simple Query"), and one round trip. The isolation that is the default may be one that a standby
refuses; none of it outlives the transaction, so that none reaches others through a balancer."""


async def connect(connection_class: type[ConnT], conninfo: str, kwargs: Mapping[str, Any]) -> ConnT:
    """Connect as the pool does, with its ``kwargs``.

    Cancelled or failed, it leaves no socket: what libpq was opening is closed when it is freed, and
    that is now, not when the garbage collector comes.
    """
    before = cancellations()
    try:
        connection = await connection_class.connect(conninfo, **kwargs)
    except asyncio.CancelledError as exc:
        clear_frames(exc.__traceback__)
        raise
    if cancellations() > before:
        # `asyncio.wait_for` may forget that on Python 3.11.
        connection.pgconn.finish()
        raise asyncio.CancelledError
    return connection


async def resolved(kwargs: Any) -> Mapping[str, Any]:
    """The pool's option ``kwargs``, which may be a function, or a coroutine function."""
    if callable(kwargs):
        kwargs = kwargs()
        if inspect.isawaitable(kwargs):
            kwargs = await kwargs
    return kwargs or {}


class Reserved:
    """`pyscopg2.core.adapter.ReservedConnection` over a connection that is psycopg's own."""

    def __init__(self, made: AnyConnection) -> None:
        """``made`` is one as the user's pool makes them: what it is besides a way to the server
        does not count."""
        self._made = made
        """Nobody asks it for anything, but it would complain were it collected."""
        self.connection = psycopg.AsyncConnection(made.pgconn, tuple_row)

    @classmethod
    async def connect(
        cls, connection_class: type[AnyConnection], conninfo: str, kwargs: Mapping[str, Any]
    ) -> "Reserved":
        of_connecting = {k: v for k, v in kwargs.items() if k not in _OF_A_SESSION}
        reserved = cls(await connect(connection_class, conninfo, of_connecting))
        connection = reserved.connection
        try:
            # A user's `connect` may have left a transaction open.
            rolling_back = bounded_by_psycopg(connection.rollback())
            await cut_first(rolling_back, partial(cut_off, connection))
            await connection.set_autocommit(True)
        except BaseException:
            reserved.terminate()
            raise
        return reserved

    async def fetch_scalar(self, query: str, /) -> object:
        fetching = bounded_by_psycopg(self._fetch(query))
        try:
            return await cut_first(fetching, partial(cut_off, self.connection))
        finally:
            if self.connection.closed:
                self.terminate()

    async def _fetch(self, query: str) -> object:
        async with psycopg.AsyncCursor(self.connection) as cursor:
            # In bytes, without parameters and unprepared it goes to the server as it is.
            await cursor.execute((_FIRST + query).encode(), prepare=False)
            while cursor.nextset():
                pass
            result = cursor.pgresult
            # Read here, since loaders are the user's, and so may be the encoding.
            value = result.get_value(0, 0) if result is not None and result.ntuples else None
            return None if value is None else value.decode(errors="replace")

    def in_recovery(self) -> bool | None:
        return in_recovery(self.connection)

    def is_closed(self) -> bool:
        return is_closed(self.connection)

    def terminate(self) -> None:
        cut(self.connection)


def in_recovery(connection: AnyConnection) -> bool | None:
    """What the server reported last (`pyscopg2.core.adapter.TellsRecovery`)."""
    try:
        status = connection.pgconn.parameter_status(b"in_hot_standby")
    except psycopg.OperationalError:
        return None  # closed
    return None if status is None else status == b"on"
