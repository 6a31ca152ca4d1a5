"""Adapters that take connections, or give them back, in a wrong way."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from tests.testing.right_adapters import right
from tests.testing.wrong_adapters.wrong import (
    AGAIN,
    FROZEN,
    HANGS,
    LATE,
    ONCE,
    OUT,
    SOCKETS,
    create_with_asyncpgs_own_reset,
    stubbornly,
    wrong,
)


async def acquire_stubbornly(self: Any, pool: Any, /, **kwargs: Any) -> Any:
    return await stubbornly(right.acquire_from_pool(pool, **kwargs))


async def acquire_and_lose(self: Any, pool: Any, /, **kwargs: Any) -> Any:
    return await asyncio.shield(asyncio.ensure_future(right.acquire_from_pool(pool, **kwargs)))


async def acquire_tolerantly(self: Any, pool: Any, /, **_: Any) -> Any:
    return await right.acquire_from_pool(pool)


async def create_and_note_target(self: Any, target: Any, /, **options: Any) -> Any:
    self.notes["target"] = target
    return await right.create_pool(target, **options)


async def acquire_and_leave_one(self: Any, pool: Any, /, **kwargs: Any) -> Any:
    forgotten = socket.create_connection((self.notes["target"].host, self.notes["target"].port))
    cycle: list[Any] = [forgotten]
    cycle.append(cycle)
    connection = await right.acquire_from_pool(pool, **kwargs)
    forgotten.close()
    return connection


async def note_acquires(self: Any, pool: Any, /, **kwargs: Any) -> Any:
    task = asyncio.current_task()
    acquiring = self.notes.setdefault("acquiring", set())
    acquiring.add(task)
    try:
        return await right.acquire_from_pool(pool, **kwargs)
    finally:
        acquiring.discard(task)


async def release_after_those_who_acquire(self: Any, connection: Any, pool: Any, /) -> None:
    if self.notes["acquiring"]:
        await asyncio.wait(self.notes["acquiring"])
    await pool.release(connection)


async def release_and_keep(self: Any, connection: Any, pool: Any, /) -> None:
    self.notes["kept"] = connection


async def acquire_what_was_kept(self: Any, pool: Any, /) -> Any:
    return self.notes.pop("kept", None) or await right.acquire_from_pool(pool)


async def acquire_one_of_those_kept(self: Any, pool: Any, /) -> Any:
    idle = self.notes.setdefault("idle", [])
    return idle.pop() if idle else await right.acquire_from_pool(pool)


async def release_to_those_kept(self: Any, connection: Any, pool: Any, /) -> None:
    self.notes["idle"].append(connection)


async def release_and_close(self: Any, connection: Any, pool: Any, /) -> None:
    await connection.close()
    await pool.release(connection)


async def release_late_or_never(self: Any, connection: Any, pool: Any, /) -> None:
    await asyncio.sleep(0)
    await pool.release(connection)


async def acquire_unless_cancelled_twice(self: Any, pool: Any, /) -> Any:
    acquiring = asyncio.ensure_future(right.acquire_from_pool(pool))
    try:
        return await asyncio.shield(acquiring)
    except asyncio.CancelledError:
        connection = await asyncio.shield(acquiring)
        await asyncio.sleep(0)
        await pool.release(connection)
        raise


async def release_unless_cancelled_twice(self: Any, connection: Any, pool: Any, /) -> None:
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        await pool.release(connection)
        raise
    await pool.release(connection)


async def release_and_cancel_anew(self: Any, connection: Any, pool: Any, /) -> None:
    """As an adapter that looks afterwards whether there was a cancellation."""
    cancelled = False
    try:
        await pool.release(connection)
    except asyncio.CancelledError:
        cancelled = True
    if cancelled:
        raise asyncio.CancelledError


async def return_too_early(
    self: Any, connection: Any, pool: Any, returned: Callable[[], None], /
) -> None:
    returned()
    await right.release_to_pool(connection, pool)


async def release_as_it_is(self: Any, connection: Any, pool: Any, /) -> None:
    self.notes["idle"].append(connection)


WRONG_CONNECTIONS = [
    wrong(
        "a_transaction_that_is_left_open_does_not_reach_the_next_user",
        "a transaction is left open",
        acquire_from_pool=acquire_one_of_those_kept,
        release_to_pool=release_as_it_is,
    ),
    wrong(
        "an_acquired_connection_works_and_is_reused",
        "does not reuse what was released",
        release_to_pool=release_and_close,
    ),
    wrong(
        "an_unknown_acquire_argument_is_an_error_at_once",
        "knows no `no_such_argument`",
        acquire_from_pool=acquire_tolerantly,
    ),
    wrong("a_cancelled_acquire_leaves_nothing_out", HANGS, acquire_from_pool=acquire_and_lose),
    *(
        wrong(
            "a_cancelled_acquire_never_succeeds",
            r"a cancelled acquire_from_pool\(\) succeeded",
            case,
            acquire_from_pool=acquire_stubbornly,
        )
        for case in LATE
    ),
    *(
        wrong(
            "a_cancelled_acquire_closes_its_socket_with_the_pool",
            SOCKETS,
            case,
            create_pool=create_and_note_target,
            acquire_from_pool=acquire_and_leave_one,
        )
        for case in FROZEN
    ),
    wrong(
        "a_burst_with_cancellations_leaves_all_slots_free",
        HANGS,
        acquire_from_pool=acquire_and_lose,
    ),
    wrong(
        "giving_back_does_not_wait_for_those_who_connect",
        HANGS,
        acquire_from_pool=note_acquires,
        release_to_pool=release_after_those_who_acquire,
    ),
    wrong(
        "connections_that_broke_while_idle_are_not_handed_out",
        "InterfaceError|connection is closed",
        acquire_from_pool=acquire_one_of_those_kept,
        release_to_pool=release_to_those_kept,
    ),
    wrong(
        "releasing_a_broken_connection_frees_its_slot",
        "InterfaceError",
        acquire_from_pool=acquire_what_was_kept,
        release_to_pool=release_and_keep,
    ),
    wrong(
        "releasing_a_terminated_connection_frees_its_slot",
        "InterfaceError",
        acquire_from_pool=acquire_what_was_kept,
        release_to_pool=release_and_keep,
    ),
    *(
        wrong(
            "a_cancelled_release_leaves_nothing_out",
            HANGS,
            case,
            release_to_pool=release_late_or_never,
        )
        for case in FROZEN
    ),
    *(
        wrong("an_interrupted_acquire_costs_no_slot", OUT, case, acquire_from_pool=acquire_and_lose)
        for case in ONCE
    ),
    *(
        wrong(
            "an_interrupted_acquire_costs_no_slot",
            OUT,
            case,
            acquire_from_pool=acquire_unless_cancelled_twice,
        )
        for case in AGAIN
    ),
    *(
        wrong(test, OUT, case, release_to_pool=release)
        for test in (
            "an_interrupted_release_costs_no_slot",
            "an_interrupted_release_in_a_transaction_costs_no_slot",
            "an_interrupted_end_of_a_block_costs_no_slot",
        )
        for cases, release in (
            (ONCE, release_late_or_never),
            (AGAIN, release_unless_cancelled_twice),
        )
        for case in cases
    ),
    wrong(
        "interrupted_requests_cost_no_slot",
        OUT,
        {"again": False},
        release_to_pool=release_late_or_never,
    ),
    wrong(
        "interrupted_requests_cost_no_slot",
        OUT,
        {"again": True},
        release_to_pool=release_unless_cancelled_twice,
    ),
    *(
        wrong(
            "what_a_cancel_scope_cancelled_ends_with_it",
            "interrupt_release: 0",
            case,
            release_to_pool=release_and_cancel_anew,
        )
        for case in LATE
    ),
    wrong(
        "a_pool_may_end_while_a_cancelled_release_hangs",
        "never retrieved",
        create_pool=create_with_asyncpgs_own_reset,
    ),
    wrong(
        "a_double_release_frees_nothing_twice",
        "have been given the same connection",
        acquire_from_pool=acquire_one_of_those_kept,
        release_to_pool=release_to_those_kept,
    ),
    wrong(
        "what_is_said_to_be_back_can_be_taken_at_once",
        "the driver did not have it yet",
        {"broken": False},
        return_to_pool=return_too_early,
    ),
]
