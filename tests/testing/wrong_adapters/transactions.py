"""Adapters whose transactions around blocks are wrong, or that do not know what was lost."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

from tests.testing.right_adapters import right
from tests.testing.wrong_adapters.blocks import sqlstate_of_anything
from tests.testing.wrong_adapters.wrong import wrong


def transact_by_nothing(self: Any, connection: Any, /) -> Any:
    return nullcontext()


@asynccontextmanager
async def commit_in_any_case(self: Any, connection: Any, /) -> AsyncGenerator[None]:
    await connection.execute("BEGIN")
    try:
        yield
    finally:
        await connection.execute("COMMIT")


@asynccontextmanager
async def commit_what_is_open(self: Any, connection: Any, /) -> AsyncGenerator[None]:
    """Psycopg's own block does nothing on a connection that is closed."""
    await connection.execute("BEGIN")
    yield
    if not right.is_connection_closed(connection):
        await connection.execute("COMMIT")


@asynccontextmanager
async def commit_in_silence(self: Any, connection: Any, /) -> AsyncGenerator[None]:
    await connection.execute("BEGIN")
    yield
    with suppress(Exception):
        await connection.execute("COMMIT")


def knows_of_no_loss(self: Any, exc: BaseException, /) -> bool:
    return False


WRONG_TRANSACTIONS = [
    wrong(
        "a_transaction_is_committed_with_the_end_of_its_block_and_not_before",
        r"fetch_scalar\(\) is no statement of the transaction",
        transaction=transact_by_nothing,
    ),
    wrong(
        "a_transaction_whose_block_raises_is_rolled_back",
        "commits a block that has raised",
        transaction=commit_in_any_case,
    ),
    *(
        wrong(
            "a_transaction_whose_connection_is_lost_never_looks_committed",
            r"a success: transaction\(\) can't commit on a lost connection",
            {"ended_by": ended_by},
            transaction=how,
        )
        for ended_by, how in (
            ("terminate_connection", commit_what_is_open),
            ("server", commit_in_silence),
        )
    ),
    wrong(
        "errors_of_a_lost_connection_are_recognised",
        "of what a query after that raises",
        {"ended_by": "terminate_connection"},
        is_lost_error=knows_of_no_loss,
    ),
    wrong(
        "errors_of_a_statement_are_no_loss",
        "it is told that a connection is lost",
        sqlstate=sqlstate_of_anything,
    ),
    wrong(
        "what_the_server_refuses_at_the_end_of_a_transaction_is_told",
        "a success: a deferred constraint is violated",
        transaction=commit_in_silence,
    ),
]
