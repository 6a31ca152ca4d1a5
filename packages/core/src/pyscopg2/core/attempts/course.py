"""The attempts of one ``async for``: one deadline, the errors so far, and the pauses between."""

import asyncio
import random
from typing import Any, NoReturn

from pyscopg2.core.attempts.backoff import backoff
from pyscopg2.core.attempts.failures import Failures
from pyscopg2.core.attempts.shared import Shared

_LOOK = 0.2
"""Seconds at most from one look at an empty budget to the next."""


_MOMENT = 0.001
"""Seconds by which an event loop may call a timer early."""


class Course:
    """From the first attempt to the deadline."""

    def __init__(self, shared: Shared[Any, Any], timeout: float) -> None:
        self.timeout = timeout
        """Seconds, for all attempts together."""
        self.number = 1
        """Of the present attempt. An acquire that is tried again within one is one more."""
        self._budget = shared.budget
        self._failures = Failures(shared.secrets)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self.when = self._began + timeout
        """The deadline, by the event loop's clock."""
        self._budget.count(self._began)

    @property
    def left(self) -> float:
        """Seconds until the deadline; 0 where nothing can be done in them any more."""
        left = self.when - self._loop.time()
        return left if left > _MOMENT else 0.0

    def end(self) -> None:
        """There is no further attempt."""
        self._failures.forget()

    async def pause(self, failure: Exception, *, is_load: bool) -> None:
        """Wait before the block is run once more, after this error.

        ``is_load``: there was a connection, so that servers have worked for it in vain. Such
        repeats are limited by the manager's budget, and wait for it. Where no time is left, the
        first error is raised.
        """
        self._failures.add(failure, self.number, self._loop.time() - self._began)
        await asyncio.sleep(min(backoff(self.number - 1), self.left))
        while self.left > 0:
            if not is_load or self._budget.spend(self._loop.time()):
                self.number += 1
                return
            await asyncio.sleep(min(random.random() * _LOOK, self.left))
        self.give_up(failure)

    def give_up(self, last: Exception) -> NoReturn:
        """Out of time: raise the first error, with the later ones as notes. ``last`` is the one
        that it ended with, the first one, maybe."""
        self._failures.add(last, self.number, self._loop.time() - self._began)
        first = self._failures.told()
        try:
            raise first or last
        finally:
            # Their tracebacks know this frame.
            del first, last
