"""Tests in virtual time."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from pyscopg2.testing.virtual_time import run

P = ParamSpec("P")
T = TypeVar("T")


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in virtual time; what only the event loop hears of is an error, too."""

    @functools.wraps(test)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        unheard: list[dict[str, Any]] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: unheard.append(context))
            await test(*args, **kwargs)

        run(main())
        assert unheard == []

    return wrapped


def now() -> float:
    return asyncio.get_running_loop().time()


def start(work: Awaitable[T]) -> "asyncio.Task[T]":
    """Run it in a task of its own; what `acquire` returns will do, too."""
    return asyncio.ensure_future(work)
