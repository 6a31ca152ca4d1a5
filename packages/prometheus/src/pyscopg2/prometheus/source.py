"""A manager under its name, asked from whatever thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pyscopg2.base import BasePoolManager
from pyscopg2.core.statistics import Stats


class Source:
    """Asks a manager for its numbers in the thread in which it lives, since nothing in it has a
    lock."""

    def __init__(
        self, manager: BasePoolManager[Any, Any], name: str, unsubscribe: Callable[[], None]
    ) -> None:
        """``unsubscribe`` is for whoever lets it go."""
        self.manager = manager
        self.name = name
        self.unsubscribe = unsubscribe
        self._first = manager.stats()
        """Holds until the manager starts: nothing happens in it before."""

    def ask(self) -> "Future[Stats]":
        """The numbers of now. They come as soon as the manager's event loop turns."""
        told: Future[Stats] = Future()
        loop = self.manager.loop
        if loop is None:
            told.set_result(self._first)
        elif loop is _running() or not _call(loop, self._tell, told):
            # This is its thread; or its loop is closed, and nothing happens in it any more.
            self._tell(told)
        return told

    def _tell(self, told: "Future[Stats]") -> None:
        if not told.set_running_or_notify_cancel():
            return
        try:
            told.set_result(self.manager.stats())
        except BaseException as exc:
            told.set_exception(exc)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> bool:
    """Have it called in the loop's thread. False: the loop is closed."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return False
    return True
