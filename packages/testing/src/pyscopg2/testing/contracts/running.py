"""A test in an event loop of its own, which never hangs: whatever an adapter does, it is named."""

import asyncio
import faulthandler
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import pytest

from pyscopg2.testing.contracts.verbs import Verbs

__all__ = ("run_in_time",)

_GAP = 0.05
"""Seconds between two beats of the loop."""

_INTERRUPTS = 6
"""So often is interrupted what blocks the loop: the test, then what cleans up behind it."""

_GRACE = 1.0
"""Seconds for tasks of a failed test to end when they are cancelled."""


def run_in_time(
    main: Coroutine[Any, Any, None],
    verbs: Verbs,
    *,
    verb_limit: Callable[[str], float],
    limit: float,
    blocked: float,
    relieve: Callable[[], object],
) -> None:
    """Run a test to its end. It fails, and says which verb is to blame, where

    - a verb is awaited for longer than ``verb_limit`` of its name,
    - the test takes longer than ``limit``,
    - a verb's step blocks the event loop for longer than ``blocked``, or something else for longer
      than six times that: then ``relieve`` is called in another thread, to end what it waits for.

    All in seconds. Tasks that are left behind by a failed test end with it, or are forgotten.
    """
    __tracebackhide__ = True
    loop = asyncio.new_event_loop()
    watch = _LoopWatch(verbs, blocked, relieve)
    try:
        with watch:
            loop.run_until_complete(_supervise(main, verbs, verb_limit, limit, watch))
            loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        _end(loop)


async def _supervise(
    main: Coroutine[Any, Any, None],
    verbs: Verbs,
    verb_limit: Callable[[str], float],
    limit: float,
    watch: "_LoopWatch",
) -> None:
    __tracebackhide__ = True
    test = asyncio.ensure_future(main)
    until = time.monotonic() + limit
    while not test.done():
        watch.beat()
        await asyncio.wait({test}, timeout=_GAP)
        why = verbs.overdue(verb_limit)
        if why is None and time.monotonic() > until:
            why = f"the test did not end within {limit:g} s: it waits for {verbs}"
        if why is not None and not test.done():
            test.cancel()
            await asyncio.wait({test}, timeout=_GRACE)
            pytest.fail(why)
    test.result()


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Whatever is left in it, and however that takes its being cancelled."""
    left = asyncio.all_tasks(loop)
    if left:
        loop.set_exception_handler(_ignore)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=_GRACE))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _ignore(_: asyncio.AbstractEventLoop, __: dict[str, Any]) -> None:
    """What is said of a failed test's leftovers."""


class _LoopWatch:
    """A thread that sees whether the loop still turns. Where it does not, it notes where it hangs,
    and interrupts the main thread."""

    def __init__(self, verbs: Verbs, limit: float, relieve: Callable[[], object]) -> None:
        self._verbs = verbs
        self._limit = limit
        self._relieve = relieve
        self._beat = time.monotonic()
        self._told = ""
        self._over = threading.Event()
        self._main = threading.current_thread()
        self._thread = threading.Thread(target=self._watch, name="contract watch", daemon=True)

    def beat(self) -> None:
        self._beat = time.monotonic()

    def __enter__(self) -> Self:
        self.beat()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        self._over.set()
        try:
            self._thread.join()
        except KeyboardInterrupt:
            # It came late.
            if not self._told:
                raise
        if self._told:
            pytest.fail(self._told, pytrace=False)

    def _watch(self) -> None:
        while not self._over.wait(_GAP):
            verb = self._verbs.running
            seconds = time.monotonic() - self._beat
            # The tests themselves ask servers and stop processes in the loop's thread.
            if seconds > (6 * self._limit if verb is None else self._limit):
                break
        else:
            return
        who = "something" if verb is None else f"{verb}()"
        self._told = f"{who} has blocked the event loop for {seconds:.1f} s:\n{_stacks()}"
        for _ in range(_INTERRUPTS):
            self._relieve()
            if self._main is threading.main_thread() and self._main.ident is not None:
                signal.pthread_kill(self._main.ident, signal.SIGINT)
            if self._over.wait(self._limit):
                return
        # Nothing else ends it. Where it hangs, pytest shows then (faulthandler).
        os.abort()


def _stacks() -> str:
    """Of all threads: where they are just now."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        return file.read()
