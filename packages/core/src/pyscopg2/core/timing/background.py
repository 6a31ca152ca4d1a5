"""Work that nobody waits for: closing a pool, giving a dead connection back."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from pyscopg2.core.diagnosis import log
from pyscopg2.core.timing.stall import Stall

_PROGRAMMING = (AttributeError, NameError, NotImplementedError, TypeError)
"""Errors that no server and no network causes: an adapter, or what it calls, is written wrongly."""


class Background:
    """Keeps the tasks of one manager that run by themselves, until each has ended."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()
        self._told: set[tuple[type[BaseException], str]] = set()
        """The programming errors that were logged, and what raised them."""

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it. Nobody is there to be told what it raises: that is logged, at level DEBUG; a
        programming error as an error, with its traceback, once."""
        task = asyncio.get_running_loop().create_task(self._contained(work))
        # Where the event loop ends in this very turn, the task never begins, and so neither does
        # the work, of which Python would say that it was never awaited.
        task.add_done_callback(lambda _: work.close())
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
        stall = Stall(once=True)
        while self._tasks and (left := until - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
            if stall.excuses(loop.time() - until):
                until = loop.time() + timeout
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # One turn for those that end when told so; the others are left to themselves.
            await asyncio.wait(self._tasks, timeout=0)

    def _end(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._say("a task", exc)

    async def _contained(self, work: Coroutine[Any, Any, Any]) -> None:
        """Not even `SystemExit` goes on to the event loop, which a task would do with it."""
        try:
            await work
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as exc:
            self._say(getattr(work, "__qualname__", "a coroutine"), exc)

    def _say(self, what: str, exc: BaseException) -> None:
        error = type(exc).__name__
        if not isinstance(exc, _PROGRAMMING):
            log.say(logging.DEBUG, "in the background: %s", error)
        elif (type(exc), what) not in self._told:
            self._told.add((type(exc), what))
            log.say(logging.ERROR, "in the background, %s raised %s", what, error, exc=exc)
