"""Work that nobody waits for: closing a pool, giving a dead connection back."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger("pyscopg2")


_LATE = 0.1
"""Seconds by which a timer rings late where the event loop stood still."""


class Background:
    """Keeps the tasks of one manager that run by themselves, until each has ended."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it; what it raises is logged at level DEBUG, since nobody is there to be told."""
        task = asyncio.get_running_loop().create_task(work)
        self.adopt(task)
        return task

    def adopt(self, task: asyncio.Future[Any]) -> None:
        """Look after a task that its creator may not wait for to the end."""
        self._tasks.add(task)
        task.add_done_callback(self._end)

    async def drain(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for all of them, and those they spawn, then cancel the
        rest. Where the event loop itself stood still, they have that long once more."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        stalled = False
        while self._tasks and (left := until - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
            if loop.time() > until + _LATE and not stalled:
                stalled = True
                until = loop.time() + timeout
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # One turn for those that end when told so; who does not is left to itself.
            await asyncio.wait(self._tasks, timeout=0)

    def _end(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.debug("in the background: %s", type(exc).__name__)
