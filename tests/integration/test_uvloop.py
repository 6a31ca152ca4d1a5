"""On uvloop, too: how a manager ends, and what cancellations leave."""

import asyncio

import uvloop

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
    test_cancelled_queries_leave_their_places_free,
    test_giving_back_on_a_frozen_host_is_bounded,
    test_random_cancellations_under_load_leave_nothing_behind,
    test_who_is_cancelled_in_the_line_leaves_it,
)

__all__ = [
    "test_a_frozen_host_holds_up_nobody",
    "test_a_frozen_host_keeps_no_cancelled_task",
    "test_cancelled_queries_leave_their_places_free",
    "test_close_cancelled_terminates",
    "test_close_in_every_state_before_the_first_check",
    "test_close_terminates_what_is_out_after_its_timeout",
    "test_close_under_load_interrupts_nobody",
    "test_closing_while_a_frozen_host_is_being_connected_to",
    "test_giving_back_on_a_frozen_host_is_bounded",
    "test_random_cancellations_under_load_leave_nothing_behind",
    "test_terminate_cuts_a_close_short",
    "test_terminate_waits_for_nobody",
    "test_who_is_cancelled_in_the_line_leaves_it",
]


async def test_these_tests_run_on_uvloop() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
