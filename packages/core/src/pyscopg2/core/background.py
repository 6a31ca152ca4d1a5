"""Work that nobody waits for: closing a pool, giving a dead connection back."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

logger = logging.getLogger("pyscopg2")


T = TypeVar("T")


def start_now(work: Awaitable[T]) -> asyncio.Future[T]:
    """Run it in a task of its own, from now on where Python can (3.12); a future is one already."""
    if asyncio.isfuture(work):
        return work
    steps = work if asyncio.iscoroutine(work) else _await(work)
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(steps, loop=loop, eager_start=True)
    return loop.create_task(steps)


async def _await(work: Awaitable[T]) -> T:
    return await work


class Background:
    """Keeps the tasks of one manager that run by themselves, until each has ended."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run it; what it raises is logged at level DEBUG, since nobody is there to be told."""
        self.adopt(asyncio.get_running_loop().create_task(work))

    def adopt(self, task: asyncio.Future[Any]) -> None:
        """Look after a task that its creator may not wait for to the end."""
        self._tasks.add(task)
        task.add_done_callback(self._end)

    async def drain(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for all of them, and those they spawn, then cancel the
        rest."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while self._tasks and (left := until - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # One turn for those that end when told so; who does not is left to itself.
            await asyncio.wait(self._tasks, timeout=0)

    def _end(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.debug("in the background: %s", type(exc).__name__)
