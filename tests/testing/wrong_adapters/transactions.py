"""Adapters whose transactions for attempts, or whose word on lost connections, are wrong."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import asyncpg
from tests.testing.right_adapters import right
from tests.testing.wrong_adapters.wrong import wrong


@asynccontextmanager
async def at_once(connection: Any) -> AsyncGenerator[None]:
    """Each statement commits by itself."""
    yield


@asynccontextmanager
async def commit_always(connection: Any) -> AsyncGenerator[None]:
    await connection.execute("BEGIN")
    try:
        yield
    finally:
        await connection.execute("COMMIT")


@asynccontextmanager
async def in_other_words(connection: Any) -> AsyncGenerator[None]:
    try:
        async with connection.transaction():
            yield
    except RuntimeError as exc:
        raise ValueError("the block has failed") from exc


@asynccontextmanager
async def quietly(connection: Any) -> AsyncGenerator[None]:
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
        async with connection.transaction():
            yield


def runs(
    begun: Callable[[Any], AbstractAsyncContextManager[None]],
) -> Callable[[Any, Any], AbstractAsyncContextManager[None]]:
    def transaction(self: Any, connection: Any, /) -> AbstractAsyncContextManager[None]:
        return begun(connection)

    return transaction


def lost_never(self: Any, exc: BaseException, /) -> bool:
    return False


def lost_always(self: Any, exc: BaseException, /) -> bool:
    return True


def no_sqlstate(self: Any, exc: BaseException, /) -> str | None:
    code = right.sqlstate(exc)
    return None if code == "22012" else code


LOST = [{"ended_by": ended_by} for ended_by in ("terminate_connection", "server")]

WRONG_TRANSACTIONS = [
    wrong(
        "a_transaction_is_committed_with_the_end_of_its_block_and_not_before",
        "it was committed before the transaction's end|is no statement of the transaction",
        transaction=runs(at_once),
    ),
    wrong(
        "a_transaction_whose_block_raises_is_rolled_back",
        "commits a block that has raised",
        transaction=runs(commit_always),
    ),
    wrong(
        "a_transaction_whose_block_raises_is_rolled_back",
        "lets pass another error",
        transaction=runs(in_other_words),
    ),
    *(
        wrong(
            "a_transaction_whose_connection_is_lost_never_looks_committed",
            r"transaction\(\) can't commit on a lost connection",
            case,
            transaction=runs(quietly),
        )
        for case in LOST
    ),
    *(
        wrong(
            "errors_of_a_lost_connection_are_recognised",
            r"neither sqlstate\(\) nor is_lost_error\(\) tells",
            case,
            is_lost_error=lost_never,
        )
        for case in LOST
    ),
    wrong(
        "errors_of_a_statement_are_no_loss",
        r"is_lost_error\(\) tells that a connection is lost",
        sqlstate=no_sqlstate,
        is_lost_error=lost_always,
    ),
    wrong(
        "what_the_server_refuses_at_the_end_of_a_transaction_is_told",
        "a deferred constraint is violated",
        transaction=runs(quietly),
    ),
]
