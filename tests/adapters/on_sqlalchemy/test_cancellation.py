"""A cancelled driver hears of it in the step in which its connection is cut off."""

import asyncio

import pytest

from pyscopg2.sqlalchemy.cancellation import cut_first


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
