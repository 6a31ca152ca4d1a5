"""Adapters whose reserved connections, or users' hooks, are wrong."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import asyncpg
from tests.testing.right_adapters import Kept, Reserving, at_each_connect, reported
from tests.testing.wrong_adapters.wrong import (
    AGAIN,
    FROZEN,
    HANGS,
    ONCE,
    REFUSALS,
    create_with_asyncpgs_own_reset,
    keeps_wrongly,
    nothing_at_once,
    stubbornly,
    wrong,
)

from pyscopg2.testing.contracts.adapter.pair import SETTINGS


async def create_with_one_more(self: Any, target: Any, /, **options: Any) -> Any:
    return await Reserving().create_pool(target, **options | {"max_size": options["max_size"] + 1})


async def reserve_patiently(self: Any, target: Any, /, **options: Any) -> Any:
    try:
        return await Reserving().reserve(target, **options)
    except OSError as exc:
        raise TimeoutError from exc


async def reserve_stubbornly(self: Any, target: Any, /, **options: Any) -> Any:
    return await stubbornly(Reserving().reserve(target, **options))


async def reserve_slowly(self: Any, target: Any, /, **options: Any) -> Any:
    try:
        return await Reserving().reserve(target, **options)
    except asyncio.CancelledError:
        await asyncio.sleep(60)
        raise


async def reserve_by_the_pool(self: Any, target: Any, /, **options: Any) -> Any:
    pool = await self.create_pool(target, **options)
    self.notes["pool"] = pool
    return Kept(await pool.acquire())


async def ask_stubbornly(self: Any, query: str, /) -> Any:
    return await stubbornly(Kept(self.connection).fetch_scalar(query))


async def ask_and_take_leave(self: Any, query: str, /) -> Any:
    try:
        return await self.connection.fetchval(query)
    except (asyncio.CancelledError, asyncpg.PostgresConnectionError):
        await asyncio.sleep(60)
        raise


async def ask_for_values(self: Any, query: str, /) -> Any:
    return await self.connection.fetchval(query)


async def ask_in_transaction(self: Any, query: str, /) -> Any:
    await self.connection.execute("BEGIN")
    return str(await self.connection.fetchval(query))


async def ask_as_aiopg(self: Any, query: str, /) -> Any:
    try:
        return str(await self.connection.fetchval(query))
    except asyncpg.QueryCanceledError:
        raise asyncio.CancelledError from None


def ask_as_usual(name: str) -> Callable[..., Any]:
    """As an adapter that relies on a setting's usual value."""

    async def ask(self: Any, query: str, /) -> Any:
        shown = await Kept(self.connection).fetch_scalar(f"SHOW {name}")
        if str(shown).startswith(SETTINGS[name]):
            raise RuntimeError("not as usual")
        return await Kept(self.connection).fetch_scalar(query)

    return ask


def never(self: Any) -> bool:
    return False


def never_told(self: Any, connection: Any, /) -> bool:
    return False


def as_first_told(self: Any) -> bool | None:
    told: bool | None = self.__dict__.setdefault("told", reported(self.connection))
    return told


async def reserve_without_params(self: Any, target: Any, /, **options: Any) -> Any:
    return await Reserving().reserve(replace(target, params={}), **options)


WRONG_CHECKS = [
    wrong(
        "a_reservation_does_what_its_dsn_says",
        "sslmode=verify-full.*parameters are dropped",
        base=Reserving,
        reserve=reserve_without_params,
    ),
    wrong(
        "a_reserved_connection_is_apart_from_the_pool",
        "3 == 2",
        base=Reserving,
        create_pool=create_with_one_more,
    ),
    wrong(
        "a_refused_reservation_is_the_drivers_error",
        "hides the driver's own error: TimeoutError",
        base=Reserving,
        reserve=reserve_patiently,
    ),
    *(
        wrong(
            "a_server_that_refuses_a_reservation_says_why",
            "tells {None}",
            case,
            base=Reserving,
            sqlstate=nothing_at_once,
        )
        for case in REFUSALS
    ),
    *(
        wrong(
            "a_reservation_that_is_cancelled_closes_its_socket",
            r"a cancelled reserve\(\) went on",
            case,
            base=Reserving,
            reserve=reserve_stubbornly,
        )
        for case in ONCE + AGAIN
    ),
    wrong(
        "a_reservation_on_a_frozen_server_ends_when_it_is_cancelled",
        HANGS,
        base=Reserving,
        reserve=reserve_slowly,
    ),
    *(
        keeps_wrongly(
            "terminating_a_reserved_connection_ends_its_pending_query_at_once",
            HANGS,
            case,
            terminate=nothing_at_once,
        )
        for case in FROZEN
    ),
    *(
        keeps_wrongly(
            "a_check_of_a_frozen_server_ends_when_it_is_cancelled_and_terminated",
            HANGS,
            {"cancelled": cancelled},
            fetch_scalar=ask_and_take_leave,
        )
        for cancelled in (False, True)
    ),
    *(
        keeps_wrongly(
            "a_check_that_is_cancelled_is_over",
            r"a cancelled fetch_scalar\(\) of the reserved connection went on",
            case,
            fetch_scalar=ask_stubbornly,
        )
        for case in ONCE + AGAIN
    ),
    keeps_wrongly(
        "a_reserved_connection_that_the_server_has_ended_is_known_to_be_closed",
        "assert False",
        is_closed=never,
    ),
    keeps_wrongly("a_check_gives_what_the_server_wrote", "SELECT 42", fetch_scalar=ask_for_values),
    keeps_wrongly(
        "a_check_leaves_no_transaction_open", "assert 1 == 0", fetch_scalar=ask_in_transaction
    ),
    keeps_wrongly(
        "a_check_that_the_server_cancels_is_an_error_and_no_cancellation",
        "as if this task had been cancelled",
        fetch_scalar=ask_as_aiopg,
    ),
    *(
        keeps_wrongly(
            "no_default_of_the_sessions_changes_what_a_check_says",
            error,
            {"setting": setting, "by": by},
            fetch_scalar=ask,
        )
        for setting, error, ask in (
            # asyncpg itself sees to the encoding: that takes another driver.
            ("DateStyle", "not as usual", ask_as_usual("DateStyle")),
            ("default_transaction_isolation", "serializable mode", ask_for_values),
            (
                "default_transaction_read_only",
                "not as usual",
                ask_as_usual("default_transaction_read_only"),
            ),
            ("search_path", "not as usual", ask_as_usual("search_path")),
            ("statement_timeout", "statement timeout", ask_for_values),
        )
        for by in ("role", "options")
    ),
    keeps_wrongly("what_is_told_of_recovery_is_true", "assert False in", in_recovery=never),
    wrong(
        "what_is_told_of_recovery_is_true",
        "assert False in",
        base=Reserving,
        in_recovery=never_told,
    ),
    keeps_wrongly(
        "what_is_told_of_recovery_is_true_after_a_promotion",
        "assert True in",
        in_recovery=as_first_told,
    ),
    wrong(
        "a_hook_is_called_at_each_acquire",
        r"assert \d == \d",
        base=Reserving,
        hooks=at_each_connect,
    ),
    wrong(
        "the_error_of_a_hook_is_told_as_the_hooks",
        "a HookError from the hook's own error, not ZeroDivisionError",
        base=Reserving,
        create_pool=create_with_asyncpgs_own_reset,
    ),
    wrong(
        "no_codec_of_users_changes_what_a_check_says",
        "users' codecs change what the server wrote",
        base=Reserving,
        reserve=reserve_by_the_pool,
    ),
    wrong(
        "what_is_reserved_is_no_acquire",
        "the user's hook was run for the monitor's connection",
        base=Reserving,
        reserve=reserve_by_the_pool,
    ),
]
