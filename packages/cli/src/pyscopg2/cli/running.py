"""An event loop that nobody has to wait for at its end."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """A thread for each call, which ends with the program at the latest.

    asyncio resolves names in its default executor, and waits for that at the end, as Python itself
    does: half a minute where a resolver is silent. A check has to end in time.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """As `concurrent.futures.Executor.submit`."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as exc:
                future.set_exception(exc)
            else:
                future.set_result(result)

        threading.Thread(target=work, name="pyscopg2", daemon=True).start()
        return future


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, which does not wait for names that are being resolved."""

    async def run_main() -> T:
        asyncio.get_running_loop().set_default_executor(DaemonThreads(1))
        return await main

    return asyncio.run(run_main())
