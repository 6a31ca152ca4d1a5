"""A pytest plugin: puts the mutant that the environment variable MUTANT names into the core."""

import contextlib
import os
import signal
from collections.abc import Generator

import pytest

from .mutants import MUTANTS

LONGEST = 30.0
"""Seconds of the processor that a test is given, some five times what the longest takes: with a
mutant in, it may go round for ever."""

# Held: with the context that has put it in, the mutant goes.
_applied = contextlib.ExitStack()
_stdout = os.dup(1)
"""Before pytest captures it."""


def pytest_configure() -> None:
    name = os.environ["MUTANT"]
    mutant = next(each for each in MUTANTS if each.name == name)
    _applied.enter_context(mutant.mutation.applied())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Not by an exception, which what goes round might catch."""

    def end(*_: object) -> None:
        os.write(_stdout, f"\nFAILED {item.nodeid} - does not end\n".encode())
        os._exit(1)

    signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
