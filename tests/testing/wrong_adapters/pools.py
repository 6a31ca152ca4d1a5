"""Adapters whose pools are wrong."""

import asyncio
from dataclasses import replace
from typing import Any

import asyncpg
from tests.testing.right_adapters import right
from tests.testing.wrong_adapters.wrong import (
    BACKENDS,
    FROZEN,
    HANGS,
    LATE,
    REFUSALS,
    SOCKETS,
    nothing,
    nothing_at_once,
    stubbornly,
    wrong,
)


async def create_small(self: Any, target: Any, /, **options: Any) -> Any:
    return await right.create_pool(target, **options | {"max_size": options["max_size"] - 1})


async def create_patiently(self: Any, target: Any, /, **options: Any) -> Any:
    try:
        return await right.create_pool(target, **options)
    except OSError as exc:
        raise TimeoutError from exc


async def create_tolerantly(
    self: Any, target: Any, /, no_such_option: int = 0, **options: Any
) -> Any:
    return await right.create_pool(target, **options)


async def create_stubbornly(self: Any, target: Any, /, **options: Any) -> Any:
    return await stubbornly(right.create_pool(target, **options))


async def create_and_leave_one(self: Any, target: Any, /, **options: Any) -> Any:
    forgotten = await asyncpg.connect(target.to_uri())
    pool = await right.create_pool(target, **options)
    await forgotten.close()
    return pool


async def terminate_by_closing(self: Any, pool: Any, /) -> None:
    await pool.close()


async def terminate_once(self: Any, pool: Any, /) -> None:
    if pool.is_closing():
        raise RuntimeError("a second time")
    pool.terminate()


async def acquire_slowly(self: Any, pool: Any, /, **kwargs: Any) -> Any:
    """Takes leave of the server, when it is cancelled."""
    try:
        return await right.acquire_from_pool(pool, **kwargs)
    except asyncio.CancelledError:
        await asyncio.sleep(60)
        raise


async def acquire_and_count(self: Any, pool: Any, /) -> Any:
    self.notes["out"] = self.notes.get("out", 0) + 1
    return await right.acquire_from_pool(pool)


async def release_and_count_what_is_open(self: Any, connection: Any, pool: Any, /) -> None:
    self.notes["out"] -= not right.is_connection_closed(connection)
    await pool.release(connection)


async def close_when_none_is_out(self: Any, pool: Any, /) -> None:
    while self.notes["out"]:
        await asyncio.sleep(0.01)
    await pool.close()


def terminate_whoever_is_there(self: Any, connection: Any, /) -> None:
    """As where a file descriptor is taken for that of the connection."""
    if right.is_connection_closed(connection):
        for other in self.notes["acquired"]:
            right.terminate_connection(other)
    right.terminate_connection(connection)


async def acquire_and_remember(self: Any, pool: Any, /, **kwargs: Any) -> Any:
    connection = await right.acquire_from_pool(pool, **kwargs)
    self.notes.setdefault("acquired", []).append(connection)
    return connection


async def create_without_params(self: Any, target: Any, /, **options: Any) -> Any:
    return await right.create_pool(replace(target, params={}), **options)


def count_all(self: Any, pool: Any, /) -> int:
    return int(pool.get_size())


def count_none(self: Any, pool: Any, /) -> int:
    return 0


WRONG_POOLS = [
    *(
        wrong(test, fails, create_pool=create_without_params)
        for test, fails in (
            ("a_pool_demands_what_its_dsn_demands", "sslmode=verify-full.*parameters are dropped"),
            ("what_a_dsn_sets_arrives", "application_name of the DSN.*dropped"),
            ("a_connect_takes_no_longer_than_its_dsn_says", HANGS),
        )
    ),
    wrong(
        "a_pool_has_room_for_its_users_and_a_monitor_that_takes_from_it",
        r"\d == \d",
        create_pool=create_small,
    ),
    wrong(
        "idle_connections_are_counted",
        "get_pool_idle_size.. is 3, and all connections are out",
        get_pool_idle_size=count_all,
    ),
    wrong(
        "idle_connections_are_counted",
        "get_pool_idle_size.. is 0, and three have come back",
        get_pool_idle_size=count_none,
    ),
    wrong(
        "a_refused_connect_is_known_when_the_pool_is_created",
        "hides the driver's own error: TimeoutError",
        create_pool=create_patiently,
    ),
    *(
        wrong("a_server_that_refuses_says_why", "tells {None}", case, sqlstate=nothing_at_once)
        for case in REFUSALS
    ),
    wrong(
        "an_unknown_pool_option_is_an_error_at_once",
        "knows no `no_such_option`",
        create_pool=create_tolerantly,
    ),
    wrong(
        "what_is_refused_may_be_known_before",
        "took an option that there is not",
        check_options=nothing_at_once,
    ),
    wrong(
        "a_pool_whose_creation_is_cancelled_leaves_nothing",
        "did not end as cancelled",
        create_pool=create_stubbornly,
    ),
    *(
        wrong(
            "a_pool_whose_creation_is_cancelled_closes_its_sockets",
            SOCKETS,
            case,
            create_pool=create_and_leave_one,
        )
        for case in LATE
    ),
    wrong("closing_a_pool_ends_its_backends", BACKENDS, close_pool=nothing),
    wrong(
        "terminating_a_pool_waits_for_nobody",
        HANGS,
        acquire_from_pool=acquire_and_count,
        release_to_pool=release_and_count_what_is_open,
        terminate_pool=close_when_none_is_out,
    ),
    wrong(
        "terminating_a_pool_of_a_frozen_server_and_again",
        "a second time",
        terminate_pool=terminate_once,
    ),
    wrong(
        "a_pool_can_be_terminated_right_after_its_creation",
        SOCKETS,
        FROZEN[0],
        terminate_pool=nothing,
    ),
    wrong(
        "a_pool_can_be_terminated_right_after_its_creation",
        HANGS,
        FROZEN[1],
        terminate_pool=terminate_by_closing,
    ),
    *(
        wrong(
            "acquires_that_connect_to_a_frozen_server_end_with_their_pool",
            HANGS,
            {"cancelled": cancelled},
            acquire_from_pool=acquire_slowly,
        )
        for cancelled in (False, True)
    ),
    wrong(
        "a_pool_closes_when_all_its_connections_were_terminated",
        HANGS,
        acquire_from_pool=acquire_and_count,
        release_to_pool=release_and_count_what_is_open,
        close_pool=close_when_none_is_out,
    ),
    wrong(
        "what_is_terminated_again_disturbs_nobody",
        "57014",
        acquire_from_pool=acquire_and_remember,
        terminate_connection=terminate_whoever_is_there,
    ),
]
