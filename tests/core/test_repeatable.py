"""Which errors mean that something was lost, and after which a block may be run once more."""

import asyncio
import errno

import pytest
from tests.core.conftest import make

from pyscopg2.core.attempts.repeatable import is_repeatable, is_rolled_back
from pyscopg2.core.errors import AcquireTimeoutError, CommitUnknown
from pyscopg2.testing.fake import FakeAdapter, FakeNetwork, PooledFakeAdapter
from pyscopg2.testing.fake_server import FakeError

ADAPTER = FakeAdapter(FakeNetwork.cluster())

LOST = ["08000", "08006", "25006", "57P01", "57P02", "57P03", "57P05"]
CONFLICTS = ["40001", "40P01"]
NEITHER = ["23505", "42601", "42501", "57014", "53300", "25P02", "57P04", "XX000", "55P03", "40002"]


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def group(*members: Exception) -> Exception:
    return ExceptionGroup("several", members)


RESET = ConnectionResetError("reset by peer")
SYNTAX = FakeError.of("42601")
GONE = FakeError.of("57P01")


@pytest.mark.parametrize("code", LOST + CONFLICTS + NEITHER)
def test_by_what_the_server_says(code: str) -> None:
    error = FakeError.of(code)
    assert make().is_lost(error) is (code in LOST)
    assert is_repeatable(error, ADAPTER, read_only=False) is (code in LOST + CONFLICTS)
    # A read that writes, writes again.
    again = is_repeatable(error, ADAPTER, read_only=True)
    assert again is (code in {*LOST, *CONFLICTS} - {"25006"})


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RESET, True),
        (BrokenPipeError(), True),
        (OSError(errno.EHOSTUNREACH, "no route to host"), True),
        (OSError(errno.ETIMEDOUT, "timed out"), True),  # the kernel's: a `TimeoutError`, too
        (TimeoutError(), False),
        (FileNotFoundError(errno.ENOENT, "no such file"), False),
        (FakeError("the connection is closed"), True),
        (FakeError("another operation is in progress"), False),
        (ValueError("the connection is closed"), False),
        (asyncio.CancelledError(), False),
        (KeyboardInterrupt(), False),
        # What an error was raised from; the first that says anything.
        (caused(RuntimeError("wrapped"), RESET), True),
        (caused(RuntimeError("wrapped"), caused(RuntimeError("wrapped"), GONE)), True),
        (caused(FakeError.of("23505"), RESET), False),
        (caused(RESET, SYNTAX), True),
        (caused(RuntimeError("wrapped"), asyncio.CancelledError()), False),
        # All of a group.
        (group(RESET, GONE), True),
        (group(RESET, RESET), True),
        (group(caused(RuntimeError(), GONE), caused(RuntimeError(), GONE)), True),
        (group(RESET, SYNTAX), False),
        (group(RESET, group(GONE, ValueError())), False),
        (caused(RuntimeError("wrapped"), group(RESET, GONE)), True),
        (BaseExceptionGroup("several", [RESET, asyncio.CancelledError()]), False),
        # The manager's own word is its last.
        (caused(AcquireTimeoutError("no connection"), RESET), False),
        (caused(CommitUnknown("who knows"), RESET), False),
    ],
    ids=repr,
)
def test_is_lost(error: BaseException, lost: bool) -> None:
    assert make().is_lost(error) is lost


def test_what_was_only_being_handled_says_nothing() -> None:
    error = ValueError("the user's own")
    error.__context__ = RESET
    assert not make().is_lost(error)


def test_causes_that_go_round_in_a_circle_end() -> None:
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert not make().is_lost(one)


def test_an_adapter_that_does_not_tell_of_losses() -> None:
    plain = PooledFakeAdapter(FakeNetwork.cluster())
    assert is_repeatable(RESET, plain, read_only=False)
    assert not is_repeatable(FakeError("the connection is closed"), plain, read_only=False)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FakeError.of("40001"), True),
        (FakeError.of("23505"), True),
        (FakeError.of("53100"), True),
        (FakeError.of("57014"), True),
        # With synchronous replication the commit may stand where a shutdown ended the wait.
        (FakeError.of("57P01"), False),
        (FakeError.of("08006"), False),
        (FakeError("something of the driver's"), False),
        (TimeoutError(), False),
        (RESET, False),
        (group(FakeError.of("40001"), RESET), False),
    ],
    ids=repr,
)
def test_whether_a_commit_was_refused_for_certain(error: Exception, said: bool) -> None:
    assert is_rolled_back(error, ADAPTER) is said
