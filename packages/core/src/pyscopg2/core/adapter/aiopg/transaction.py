"""A transaction around a block, over aiopg, which has none."""

from types import TracebackType
from typing import Any

from pyscopg2.core.adapter.aiopg.errors import AiopgErrors


class AiopgTransaction:
    """BEGIN, and COMMIT or ROLLBACK."""

    def __init__(self, connection: Any, cursor_factory: Any, errors: AiopgErrors) -> None:
        """``cursor_factory``: psycopg2's own, whatever the user has set."""
        self._connection = connection
        self._cursor_factory = cursor_factory
        self._errors = errors

    async def __aenter__(self) -> None:
        await self._run("BEGIN")

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            await self._run("COMMIT")
        elif not self._connection.closed:
            await self._run("ROLLBACK")

    async def _run(self, statement: str) -> None:
        await self._errors.heed(self._execute(statement), lambda _: None)

    async def _execute(self, statement: str) -> None:
        async with self._connection.cursor(cursor_factory=self._cursor_factory) as cursor:
            await cursor.execute(statement)
