"""Work that is given so long."""

import asyncio
import gc

import pytest
from tests.support.virtual import start, virtual

from pyscopg2.core.timing.attempt import FailedError, attempt
from pyscopg2.core.timing.background import Background

LATE = TimeoutError("late")


async def value() -> int:
    await asyncio.sleep(0.1)
    return 5


async def error() -> int:
    raise KeyError


@virtual
async def test_what_comes_of_it() -> None:
    background = Background()
    assert await attempt(value(), 1, LATE, background) == 5
    with pytest.raises(FailedError) as failed:
        await attempt(error(), 1, LATE, background)
    assert isinstance(failed.value.error, KeyError)
    with pytest.raises(FailedError) as failed:
        await attempt(value(), 0.01, LATE, background)
    assert failed.value.error is LATE
    await background.drain(1)


@virtual
async def test_where_the_event_loop_ends_before_it_begins_nothing_goes_unawaited() -> None:
    """Python would warn of the coroutine, some time later."""
    background = Background()
    attempting = start(attempt(value(), 1, LATE, background))

    me = asyncio.current_task()

    def cancel_all() -> None:
        for task in asyncio.all_tasks() - {me}:
            task.cancel()

    # After its first step, and before that of the work's own task.
    asyncio.get_running_loop().call_soon(cancel_all)
    await asyncio.wait([attempting])
    assert attempting.cancelled()
    await background.drain(1)
    del attempting
    gc.collect()
