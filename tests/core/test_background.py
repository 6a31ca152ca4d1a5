import asyncio
import gc
import logging

import pytest
from tests.core.conftest import now, other_tasks, start, virtual

from pyscopg2.core.timing.background import Background
from pyscopg2.testing.virtual_time import settle, stall


async def fail() -> None:
    raise LookupError("of user:secret")


@virtual
async def test_a_task_is_kept_until_it_has_ended() -> None:
    background = Background()
    background.spawn(asyncio.sleep(1))
    background.adopt(start(asyncio.sleep(2)))
    assert len(background) == 2
    await asyncio.sleep(1.5)
    assert len(background) == 1
    await background.drain(10)
    assert now() == 2
    assert len(background) == 0


@virtual
async def test_a_failure_is_logged_at_level_debug_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "pyscopg2"):
        Background().spawn(fail())
        await settle()
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("DEBUG", "in the background: LookupError")
    ]


@virtual
async def test_draining_waits_no_longer_than_told_and_cancels_the_rest() -> None:
    background = Background()
    background.spawn(asyncio.sleep(5))
    background.spawn(asyncio.sleep(500))
    await background.drain(10)
    assert now() == 10
    assert not other_tasks()


async def stubborn() -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(7)


@virtual
async def test_who_does_not_end_when_cancelled_is_left_to_itself() -> None:
    background = Background()
    background.spawn(stubborn())
    await background.drain(1)
    assert now() == 1
    assert len(background) == 1
    await asyncio.sleep(8)
    assert len(background) == 0


@virtual
async def test_draining_waits_for_what_is_spawned_meanwhile() -> None:
    background = Background()

    async def work() -> None:
        await asyncio.sleep(1)
        background.spawn(asyncio.sleep(1))

    background.spawn(work())
    await background.drain(10)
    assert now() == 2
    assert not other_tasks()


@virtual
async def test_nothing_to_drain_takes_no_time() -> None:
    await Background().drain(10)
    assert now() == 0


@virtual
async def test_a_stall_of_our_own_takes_nobody_the_time() -> None:
    background = Background()
    ended: list[float] = []

    async def work() -> None:
        await asyncio.sleep(1.5)
        await asyncio.sleep(0.5)
        ended.append(now())

    background.spawn(work())
    asyncio.get_running_loop().call_later(1, stall, 3)
    await background.drain(2)
    assert ended == [4.5]
    assert not other_tasks()


@virtual
async def test_work_that_never_begins_leaves_no_warning() -> None:
    background = Background()
    begun: list[str] = []

    async def work() -> None:
        begun.append("begun")

    task = background.spawn(work())
    task.cancel()
    await asyncio.wait([task])
    gc.collect()
    assert not begun


@virtual
async def test_a_programming_error_is_logged_with_its_traceback_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def close() -> None:
        raise TypeError("close() takes 1 positional argument but 2 were given")

    background = Background()
    with caplog.at_level(logging.INFO, "pyscopg2"):
        for _ in range(3):
            background.spawn(close())
            await settle()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().endswith("close raised TypeError")
    assert record.exc_info is not None
    assert record.exc_info[2] is not None
