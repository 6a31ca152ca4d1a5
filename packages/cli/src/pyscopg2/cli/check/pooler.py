"""Whether a pooler stands between us and a server, and how it works.

A pooler makes up the key by which a client cancels its queries, since the client's server may be
another one next time (PostgreSQL manual, 55.2.8 "Canceling Requests in Progress"). So the process
that the key names is not the one that answers.
"""

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import asyncpg

from pyscopg2.cli.check import deadlines
from pyscopg2.cli.check.finding import Kind

if TYPE_CHECKING:
    from asyncpg import Connection, Record

_ROUNDS = 5
"""In transaction mode each round tells, unless others take all servers just then."""

_ALONE = ("server_login_retry", "server login", "query_wait_timeout")
"""What PgBouncer says when a client that it has let in asks something, and it has no server."""


class Pooler(enum.Enum):
    """What stands between."""

    NONE = "none"
    SESSION = "session"
    """Each client keeps its server, as far as could be seen."""
    TRANSACTION = "transaction"
    """A client's server is another's when the transaction ends."""


async def find_pooler(
    connection: "Connection[Record]",
    pid: int,
    connect: Callable[[], Awaitable["Connection[Record]"]],
) -> Pooler:
    """``pid`` is that of the process that answered on ``connection``; ``connect`` makes one more.

    Raises nothing of the other connection: a pooler that has no server for it has given ours to
    nobody.
    """
    if connection.get_server_pid() == pid:
        return Pooler.NONE
    try:
        async with asyncio.timeout(deadlines.POOLER):
            other = await connect()
            try:
                shared = await _share_a_server(connection, other)
            finally:
                other.terminate()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        return Pooler.SESSION
    return Pooler.TRANSACTION if shared else Pooler.SESSION


def kind_of_failure(said: str) -> Kind:
    """Of a query that failed after a login that did not: by what the server, or a pooler, said."""
    return Kind.POOLER_ALONE if any(words in said for words in _ALONE) else Kind.CHECK_FAILED


async def _share_a_server(ours: "Connection[Record]", other: "Connection[Record]") -> bool:
    """Whether both of two open connections meet one server, or one of them meets two."""
    mine: set[int] = set()
    for _ in range(_ROUNDS):
        mine.add(await _pid(ours))
        if len(mine) > 1 or await _pid(other) in mine:
            return True
    return False


async def _pid(connection: "Connection[Record]") -> int:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        pid: int = await connection.fetchval("SELECT pg_catalog.pg_backend_pid()")
    return pid
