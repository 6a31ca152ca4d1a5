"""Async tests that need no plugin: each runs in an event loop of its own, as its bench runs it."""

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

__all__ = ("RunsTests", "in_own_loop")


class RunsTests(Protocol):
    """The test's first fixture: it knows for how long a test may run and what it may leave."""

    def run(self, main: Coroutine[Any, Any, None], /) -> None:
        """Run the test; fails where the test does, and where it leaves something behind."""
        ...


P = ParamSpec("P")
SuiteT = TypeVar("SuiteT")
RunnerT = TypeVar("RunnerT", bound=RunsTests)


def in_own_loop(
    test: Callable[Concatenate[SuiteT, RunnerT, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[SuiteT, RunnerT, P], None]:
    """Make an async test method a plain one, which runs it by its first fixture.

    So the contracts ask nothing of a stranger's pytest: neither pytest-asyncio nor anyio's plugin
    has to be there, and where one is, it finds nothing to do.
    """
    signature = inspect.signature(test)

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        # pytest gives fixtures and parameters by their names.
        _, runner, *_ = signature.bind(*args, **kwargs).args
        runner.run(test(*args, **kwargs))

    return run
