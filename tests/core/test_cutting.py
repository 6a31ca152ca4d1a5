"""A cancelled driver hears of it in the step in which its connection is cut off."""

import asyncio

import anyio
import pytest
from tests.support.cancelling import cancelled_at

from pyscopg2.core.adapter.cutting import cut_first


async def test_nobody_comes_between_the_cut_and_the_drivers_hearing_of_it() -> None:
    """A connect in between could get the file descriptor that the driver still watches."""
    happened: list[str] = []
    loop = asyncio.get_running_loop()

    async def work() -> None:
        try:
            await loop.create_future()
        finally:
            happened.append("heard")

    def cut() -> None:
        loop.call_soon(happened.append, "somebody else's turn")
        happened.append("cut")

    task = asyncio.ensure_future(cut_first(work(), cut))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert happened == ["cut", "heard", "somebody else's turn"]


async def test_a_cancellation_is_raised_also_where_the_work_succeeds() -> None:
    async def work() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "done all the same"
        return "never"

    task = asyncio.ensure_future(cut_first(work(), lambda: None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_works_and_what_fails_comes_through() -> None:
    async def work(fails: bool) -> str:
        await asyncio.sleep(0)
        if fails:
            raise LookupError("the work's own")
        return "done"

    assert await cut_first(work(False), lambda: None) == "done"
    with pytest.raises(LookupError, match="the work's own"):
        await cut_first(work(True), lambda: None)


async def test_it_is_heard_once_however_often_the_task_is_cancelled() -> None:
    """What SQLAlchemy does when it is cancelled, it does to the end."""
    happened: list[str] = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for _ in range(5):
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    happened.append("interrupted")
            happened.append("done")

    async def main() -> None:
        happened.clear()
        await cut_first(work(), lambda: happened.append("cut"))

    for turn in range(3):
        task = asyncio.ensure_future(cancelled_at(main(), 0, again=turn > 0))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert happened == ["cut", "done"]
        with anyio.move_on_after(0) as scope:
            await main()
        assert scope.cancelled_caught
        assert happened == ["cut", "done"]


async def test_what_comes_of_it_all_the_same_is_undone() -> None:
    undone: list[str] = []

    async def work(late: bool) -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if late:
                await asyncio.sleep(0)
        return "a connection"

    for late in (False, True):
        undone.clear()
        task = asyncio.ensure_future(cut_first(work(late), lambda: None, undone.append))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert undone == ["a connection"]


@pytest.mark.parametrize("late", [False, True])
async def test_a_cancellation_is_raised_also_where_the_work_fails(late: bool) -> None:
    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            if late:
                await asyncio.sleep(0)
            raise LookupError("the connection was cut off")

    task = asyncio.ensure_future(cut_first(work(), lambda: None))
    await asyncio.sleep(0)
    task.cancel("the user's")
    with pytest.raises(asyncio.CancelledError, match="the user's"):
        await task


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("handled", [False, True])
@pytest.mark.parametrize("cancelling", [False, True], ids=["", "of a cancelled task"])
async def test_a_timeout_within_the_work_is_no_cancellation(
    handled: bool, late: bool, cancelling: bool
) -> None:
    """SQLAlchemy's own `pool_timeout`, asyncpg's `timeout`, a listener's."""

    async def wait() -> None:
        async with asyncio.timeout(0):
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                if late:
                    await asyncio.sleep(0)

    async def work() -> str:
        try:
            await wait()
        except TimeoutError:
            if not handled:
                raise
        await asyncio.sleep(0)
        return "done"

    async def main() -> str:
        me = asyncio.current_task()
        assert me is not None
        if cancelling:
            me.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(0)
        if not handled:
            with pytest.raises(TimeoutError):
                await cut_first(work(), lambda: None)
            return "done"
        return await cut_first(work(), lambda: None)

    assert await asyncio.ensure_future(main()) == "done"


async def test_frames_that_wait_are_left_alone() -> None:
    """To clear the frame of a generator is to end it."""

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)

    async def outer() -> None:
        try:
            await cut_first(work(), lambda: None)
        finally:
            ended.append("outer")

    ended: list[str] = []
    task = asyncio.ensure_future(outer())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(30):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ended == ["outer"]
