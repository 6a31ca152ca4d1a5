"""The connection that a monitor keeps, apart from the pool."""

from typing import Any

from pyscopg2.core.adapter.aiopg.connection import cut, in_recovery
from pyscopg2.core.adapter.aiopg.errors import AiopgErrors
from pyscopg2.core.adapter.hangup import hung_up

_LOCALLY = "SET LOCAL statement_timeout = 0; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "
"""Several statements in one message are one transaction and one round trip (PostgreSQL manual,
53.2.2.1 "Multiple Statements in a Simple Query"): what is set here, no other session of a pooler's
between us and the server ever sees. A standby refuses to read where serializable is the default."""


class AiopgReserved:
    """`pyscopg2.core.adapter.ReservedConnection`, of aiopg's own kind."""

    def __init__(self, connection: Any, extensions: Any, errors: AiopgErrors) -> None:
        """``extensions``: psycopg2's module."""
        self.raw = connection
        """aiopg's."""
        self._extensions = extensions
        self._errors = errors
        self._as_written = extensions.new_type(
            tuple(extensions.string_types), "AS_WRITTEN", _as_written
        )
        """What the server wrote, of every type that psycopg2 would make something else of."""

    async def fetch_scalar(self, query: str, /) -> object:
        return await self._errors.heed(self._fetch(query), lambda _: None)

    async def _fetch(self, query: str) -> object:
        async with self.raw.cursor(cursor_factory=self._extensions.cursor) as cursor:
            self._extensions.register_type(self._as_written, cursor.raw)
            await cursor.execute(_LOCALLY + query)
            row = await cursor.fetchone()
        if row is None:
            raise self._errors.data("the server answered with no row")
        return row[0]

    def in_recovery(self) -> bool | None:
        return in_recovery(self.raw, self._errors)

    def is_closed(self) -> bool:
        # aiopg notices a hang-up, too, but not before the event loop has turned.
        return bool(self.raw.closed) or hung_up(self.raw.raw.fileno())

    def terminate(self) -> None:
        cut(self.raw)


def _as_written(text: str | None, cursor: object) -> str | None:
    return text
