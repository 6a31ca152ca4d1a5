"""Adapters that keep the contract, each by other means."""

from collections.abc import Callable
from typing import Any

import asyncpg

from pyscopg2.asyncpg import AsyncpgAdapter
from pyscopg2.core.adapter import HookError
from pyscopg2.testing.contract import Subject

Right = AsyncpgAdapter

right = Right()


class Committing(AsyncpgAdapter):
    def end_block(self, connection: Any, exc: BaseException | None, /) -> Any:
        return self._end(connection, exc)

    async def _end(self, connection: Any, exc: BaseException | None) -> None:
        if exc is None or not connection.is_closed():
            await connection.execute("COMMIT" if exc is None else "ROLLBACK")


class Kept:
    """A reserved connection."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def fetch_scalar(self, query: str, /) -> object:
        connection = self.connection
        try:
            await connection.execute(
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0"
            )
            answer = await connection.fetchval(query)
            await connection.execute("COMMIT")
        except asyncpg.PostgresError:
            if not connection.is_closed():
                await connection.execute("ROLLBACK")
            raise
        except BaseException:
            connection.terminate()
            raise
        return answer if answer is None else str(answer)

    def in_recovery(self) -> bool | None:
        return reported(self.connection)

    def is_closed(self) -> bool:
        return bool(self.connection.is_closed())

    def terminate(self) -> None:
        self.connection.terminate()


def reported(connection: Any) -> bool | None:
    try:
        told = getattr(connection.get_settings(), "in_hot_standby", None)
    except (asyncpg.InterfaceError, AttributeError):  # closed, or given back
        return None
    return None if told is None else told == "on"


class Reserving(AsyncpgAdapter):
    kept: type[Kept] = Kept

    async def create_pool(self, target: Any, /, **options: Any) -> Any:
        pool = asyncpg.create_pool(target.to_uri(), **options | marked(options))
        try:
            return await pool
        except BaseException:
            pool.terminate()
            raise

    async def reserve(self, target: Any, /, **options: Any) -> Any:
        return self.kept(await asyncpg.connect(target.to_uri()))

    def in_recovery(self, connection: Any, /) -> bool | None:
        return reported(connection)


def marked(options: dict[str, Any]) -> dict[str, Any]:
    """So that what the user's hook raises is known as such."""

    async def setup(connection: Any) -> None:
        try:
            await options["setup"](connection)
        except Exception as exc:
            raise HookError from exc

    return {"setup": setup} if "setup" in options else {}


def at_each_acquire(hook: Callable[[], None]) -> dict[str, Any]:
    async def setup(_: object) -> None:
        hook()

    return {"setup": setup}


def at_each_connect(hook: Callable[[], None]) -> dict[str, Any]:
    return {"init": at_each_acquire(hook)["setup"]}


async def set_codecs(connection: Any) -> None:
    await connection.set_type_codec("text", schema="pg_catalog", encoder=str, decoder="<{}>".format)


async def execute(connection: Any, sql: str) -> None:
    await connection.execute(sql)


async def execute_in_transaction(connection: Any, sql: str) -> None:
    if not connection.is_in_transaction():
        await connection.execute("BEGIN")
    await connection.execute(sql)


def subject_of(adapter: AsyncpgAdapter, **changes: Any) -> Subject[Any, Any]:
    commits = isinstance(adapter, Committing)
    settings: dict[str, Any] = {"hooks": at_each_acquire, "codecs": {"init": set_codecs}, **changes}
    return Subject(
        adapter,
        execute=execute_in_transaction if commits else execute,
        commits=commits,
        autocommit=not commits,
        **settings,
    )
