"""Adapters whose queries, or the ends of whose blocks, are wrong."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from tests.testing.right_adapters import Committing, right
from tests.testing.wrong_adapters.wrong import FROZEN, HANGS, nothing, nothing_at_once, wrong

from pyscopg2.testing.bench import chain


def sqlstate_of_anything(self: Any, exc: BaseException, /) -> Any:
    return "08000"


async def fetch_row(self: Any, connection: Any, query: str, /) -> Any:
    return await connection.fetchrow(query)


async def fetch_in_transaction(self: Any, connection: Any, query: str, /) -> Any:
    await connection.execute("BEGIN")
    return await connection.fetchval(query)


async def fetch_and_take_leave(self: Any, connection: Any, query: str, /) -> Any:
    try:
        return await connection.fetchval(query)
    except (asyncio.CancelledError, asyncpg.PostgresConnectionError):
        await asyncio.sleep(60)
        raise


async def fetch_as_aiopg(self: Any, connection: Any, query: str, /) -> Any:
    try:
        return await connection.fetchval(query)
    except asyncpg.QueryCanceledError:
        raise asyncio.CancelledError from None


async def end_quietly(self: Any, connection: Any, exc: BaseException | None, /) -> None:
    with suppress(Exception):
        await Committing().end_block(connection, exc)


async def commit_always(self: Any, connection: Any, exc: BaseException | None, /) -> None:
    await connection.execute("COMMIT")


@asynccontextmanager
async def commit_quietly(connection: Any) -> AsyncGenerator[None]:
    """SQLAlchemy's commit does nothing on a connection that is closed."""
    await connection.execute("BEGIN")
    yield
    if not right.is_connection_closed(connection):
        await connection.execute("COMMIT")


async def fetch_and_tell_of_cancellations(self: Any, connection: Any, query: str, /) -> Any:
    try:
        return await connection.fetchval(query)
    except asyncio.CancelledError:
        raise asyncpg.QueryCanceledError("canceling statement due to user request") from None


def sqlstate_of_causes(self: Any, exc: BaseException, /) -> Any:
    return next(filter(None, map(right.sqlstate, chain(exc))), None)


def terminate_later(self: Any, connection: Any, /) -> None:
    asyncio.get_running_loop().call_later(1.2, right.terminate_connection, connection)


WRONG_BLOCKS = [
    *(
        wrong(
            "terminating_a_connection_ends_its_pending_query_at_once",
            r"terminate_connection\(\) comes late",
            case,
            terminate_connection=terminate_later,
        )
        for case in FROZEN
    ),
    *(
        wrong(
            "terminating_a_connection_ends_its_pending_query_at_once",
            HANGS,
            case,
            terminate_connection=nothing_at_once,
        )
        for case in FROZEN
    ),
    *(
        wrong(
            "a_query_on_a_frozen_server_ends_when_it_is_cancelled_and_terminated",
            HANGS,
            {"cancelled": cancelled},
            fetch_scalar=fetch_and_take_leave,
        )
        for cancelled in (False, True)
    ),
    wrong(
        "fetch_scalar_gives_the_first_column_of_the_first_row",
        "== 'a b'",
        fetch_scalar=fetch_row,
    ),
    wrong(
        "fetch_scalar_leaves_no_transaction_open",
        "assert 1 == 0",
        fetch_scalar=fetch_in_transaction,
    ),
    wrong(
        "a_query_that_the_server_cancels_is_an_error_and_no_cancellation",
        "as if this task had been cancelled",
        fetch_scalar=fetch_as_aiopg,
    ),
    wrong(
        "a_query_that_is_cancelled_is_a_cancellation_and_no_error",
        "was cancelled, and ended in another way",
        fetch_scalar=fetch_and_tell_of_cancellations,
    ),
    wrong(
        "sqlstate_is_that_of_this_very_error",
        "42883, that of the cause",
        sqlstate=sqlstate_of_causes,
    ),
    wrong(
        "sqlstate_of_what_no_server_sent_is_none",
        "which no server has sent",
        sqlstate=sqlstate_of_anything,
    ),
    wrong(
        "a_block_that_ends_well_ends_as_the_drivers_own",
        "is True",
        base=Committing,
        end_block=nothing,
    ),
    wrong(
        "a_block_that_raises_keeps_nothing_that_was_not_committed",
        "is False",
        base=Committing,
        end_block=commit_always,
    ),
    wrong(
        "a_block_whose_connection_was_terminated_never_looks_committed",
        r"end_block\(\) can't commit on a terminated connection",
        base=Committing,
        end_block=end_quietly,
    ),
    wrong(
        "what_the_server_refuses_at_the_end_of_a_block_is_told",
        "23505",
        base=Committing,
        end_block=end_quietly,
    ),
    *(
        wrong(
            "a_users_own_commit_on_a_terminated_connection_raises",
            "commit_quietly ended as if it had committed",
            {"released": released},
            transactions={"commit_quietly": commit_quietly},
        )
        for released in (False, True)
    ),
]
