"""Ending a connection at once, without a word to the server."""

import asyncio
from contextlib import suppress
from typing import Any, TypeAlias

from psycopg import AsyncConnection, OperationalError
from psycopg.pq import PGconn, TransactionStatus

from pyscopg2.core.adapter import hangup

AnyConnection: TypeAlias = AsyncConnection[Any]

PATIENCE = 1.0
"""Seconds for a task to let go of a connection that was cut off. It does at once, unless it holds
on to it without waiting for it, as a generator of notifications does that nobody goes on with."""


def is_closed(connection: AnyConnection) -> bool:
    """As far as this machine knows: psycopg looks at the socket only while it waits for it."""
    return connection.closed or hangup.hung_up(connection.fileno())


def shut_down(connection: AnyConnection) -> None:
    """Shut its socket down, which whoever waits for it reads as the end of the stream."""
    with suppress(OperationalError):  # it is closed already
        hangup.shut_down(connection.fileno())


def cut(connection: AnyConnection) -> None:
    """From any state, twice, and while another task waits for it."""
    shut_down(connection)
    if not connection.lock.locked():
        finish(connection)
    # Else the task that waits for the socket finds it at its end, in the next loop turn.


def cut_off(connection: AnyConnection) -> None:
    """Terminate a connection whose lock is held by the one who is about to hear of it."""
    shut_down(connection)
    connection.pgconn.finish()


def cut_query(connection: AnyConnection) -> None:
    """What the driver asks the server just now, if anything, fails; else nothing happens."""
    if connection.lock.locked():
        shut_down(connection)


def finish(connection: AnyConnection) -> None:
    """Close it, in a way that whoever has a transaction open cannot take for a success."""
    if connection.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN):
        connection.pgconn.finish()
    else:
        # `connection.transaction()` ends in silence where its own PGconn is closed. So that one
        # stays as it is, with its socket shut down, for as long as the transaction refers to it.
        dead = PGconn.connect_start(b"=")  # no conninfo: it fails before it opens anything
        dead.finish()
        connection.pgconn = dead


async def let_go(connection: AnyConnection) -> None:
    """Wait until the task that uses a connection has let go of it, which was cut off."""
    taking = asyncio.ensure_future(connection.lock.acquire())
    try:
        await asyncio.wait({taking}, timeout=PATIENCE)
    finally:
        if not taking.cancel():
            connection.lock.release()
    finish(connection)
