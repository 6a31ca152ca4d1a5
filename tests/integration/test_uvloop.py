"""On uvloop, too: how a manager ends, and what cancellations leave."""

import asyncio
from typing import Any

import pytest
import uvloop

from pyscopg2.base import BasePoolManager
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.testing.fake import FakeAdapter, FakeConnection, FakeNetwork, FakePool

from .test_balancing import (
    test_equal_replicas_all_get_a_share_of_the_reads,
    test_of_unequal_replicas_the_near_one_gets_more,
    test_times_are_finer_than_the_clock_of_the_loop,
    test_to_who_looks_at_no_times_they_are_equal,
)
from .test_closing import (
    test_a_frozen_host_holds_up_nobody,
    test_close_cancelled_terminates,
    test_close_in_every_state_before_the_first_check,
    test_close_terminates_what_is_out_after_its_timeout,
    test_close_under_load_interrupts_nobody,
    test_closing_while_a_frozen_host_is_being_connected_to,
    test_terminate_cuts_a_close_short,
    test_terminate_waits_for_nobody,
)
from .test_faults import (
    test_a_frozen_host_keeps_no_cancelled_task,
    test_cancelled_queries_leave_their_slots_free,
    test_giving_back_on_a_frozen_host_is_bounded,
    test_random_cancellations_under_load_leave_nothing_behind,
    test_who_is_cancelled_in_the_line_leaves_it,
)

__all__ = [
    "test_a_frozen_host_holds_up_nobody",
    "test_a_frozen_host_keeps_no_cancelled_task",
    "test_cancelled_queries_leave_their_slots_free",
    "test_close_cancelled_terminates",
    "test_close_in_every_state_before_the_first_check",
    "test_close_terminates_what_is_out_after_its_timeout",
    "test_close_under_load_interrupts_nobody",
    "test_closing_while_a_frozen_host_is_being_connected_to",
    "test_equal_replicas_all_get_a_share_of_the_reads",
    "test_giving_back_on_a_frozen_host_is_bounded",
    "test_of_unequal_replicas_the_near_one_gets_more",
    "test_random_cancellations_under_load_leave_nothing_behind",
    "test_terminate_cuts_a_close_short",
    "test_terminate_waits_for_nobody",
    "test_times_are_finer_than_the_clock_of_the_loop",
    "test_to_who_looks_at_no_times_they_are_equal",
    "test_who_is_cancelled_in_the_line_leaves_it",
]


async def test_these_tests_run_on_uvloop() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


async def test_a_timer_that_uvloop_calls_early_has_rung() -> None:
    """It rounds to milliseconds: an acquire must not connect again and again for the rest."""
    network = FakeNetwork.cluster(0)
    connects = 0

    class Adapter(FakeAdapter):
        async def acquire_from_pool(self, pool: FakePool, /, **kwargs: Any) -> FakeConnection:
            nonlocal connects
            connects += 1
            return await pool.acquire(**kwargs)

    class Manager(BasePoolManager[FakePool, FakeConnection]):
        adapter = Adapter(network)

    async with Manager(network.dsn, refresh_delay=60, refresh_timeout=60) as manager:
        await manager.ready()
        held = await manager.acquire()
        network.master.freeze()
        connects = 0
        for timeout in (0.0104, 0.0203, 0.02049, 0.0304, 0.0404):
            with pytest.raises(AcquireTimeoutError):
                await manager.acquire(timeout=timeout)
        network.master.thaw()
        await manager.release(held)
    assert connects == 5
