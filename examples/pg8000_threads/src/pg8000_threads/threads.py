"""Threads for what blocks, each for as long as it blocks."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Run it in a daemon thread of its own.

    Not in one of an executor, as `asyncio.to_thread` does: `asyncio.run` and the interpreter wait
    for those, so a server or a name service that does not answer keeps the program from ending.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # it is done when the thread is, whoever still waits

    def run() -> None:
        try:
            result = work()
        except BaseException as exc:
            future.set_exception(exc)
        else:
            future.set_result(result)

    Thread(target=run, name="pg8000", daemon=True).start()
    return future
