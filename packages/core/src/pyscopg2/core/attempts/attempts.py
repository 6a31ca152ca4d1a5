"""What `BasePoolManager.attempts` gives."""

from typing import Any, Generic, Self

from pyscopg2.core.adapter.protocol import ConnT
from pyscopg2.core.attempts.attempt import Attempt, Stage
from pyscopg2.core.attempts.course import Course
from pyscopg2.core.attempts.shared import Acquires, Shared


class Attempts(Generic[ConnT]):
    """``async for`` it, once: one attempt after the other, until one has succeeded."""

    def __init__(
        self,
        shared: Shared[Any, ConnT],
        acquires: Acquires[ConnT],
        timeout: float,
        *,
        read_only: bool,
        idempotent: bool,
    ) -> None:
        """``timeout``: seconds, from the first attempt on."""
        self._shared = shared
        self._acquires = acquires
        self._timeout = timeout
        self._read_only = read_only
        self._idempotent = idempotent
        self._course: Course | None = None
        self._last: Attempt[ConnT] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Attempt[ConnT]:
        """The next attempt, where the last one is to be run once more.

        `RuntimeError`: the last one was not entered, or its block goes on. Out of time, the first
        error is raised.
        """
        last = self._last
        if self._course is None:
            self._course = Course(self._shared, self._timeout)
        elif last is None or last.stage is Stage.OVER:
            raise StopAsyncIteration
        elif last.failure is None:
            raise RuntimeError(
                "the last attempt was not entered, or goes on: `async with attempt as connection`"
            )
        else:
            self._last = None
            failure, last.failure = last.failure, None
            try:
                await self._course.pause(failure, is_load=last.had_connection)
            finally:
                del failure  # its traceback knows this frame
        self._last = Attempt(
            self._shared,
            self._acquires,
            self._course,
            read_only=self._read_only,
            idempotent=self._idempotent,
        )
        return self._last
