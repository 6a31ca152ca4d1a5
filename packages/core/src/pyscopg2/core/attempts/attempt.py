"""One attempt, which a user enters."""

import enum
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic

from pyscopg2.core.adapter.protocol import ConnT, RunsTransactions
from pyscopg2.core.attempts.block import Progress, connected, in_transaction
from pyscopg2.core.attempts.course import Course
from pyscopg2.core.attempts.evidence import Finding
from pyscopg2.core.attempts.inquiry import inquire
from pyscopg2.core.attempts.repeatable import is_repeatable, is_rolled_back
from pyscopg2.core.attempts.shared import Acquires, Shared
from pyscopg2.core.errors import AcquireTimeoutError, CommitUnknown


class Stage(enum.Enum):
    """What became of an attempt."""

    NEW = enum.auto()
    ENTERED = enum.auto()
    FAILED = enum.auto()
    """The block is to be run once more."""
    OVER = enum.auto()
    """It has succeeded, or its error was raised."""


class Attempt(Generic[ConnT]):
    """``async with`` it, once: a connection, in a transaction that is committed with the block's
    end. An error after which the block may be run once more is not raised: the next attempt
    follows."""

    def __init__(
        self,
        shared: Shared[Any, ConnT],
        acquires: Acquires[ConnT],
        course: Course,
        *,
        read_only: bool,
        idempotent: bool,
    ) -> None:
        self.stage = Stage.NEW
        self.failure: Exception | None = None
        """Why the block is to be run once more."""
        self._shared = shared
        self._acquires = acquires
        self._course = course
        self._read_only = read_only
        self._idempotent = idempotent
        self._transacts = not read_only and isinstance(shared.adapter, RunsTransactions)
        self._progress = Progress()
        self._block: AbstractAsyncContextManager[ConnT] | None = None

    @property
    def had_connection(self) -> bool:
        return self._progress.is_connected

    async def __aenter__(self) -> ConnT:
        """The errors are those of `BasePoolManager.attempts`; `RuntimeError`: it was entered
        before."""
        if self.stage is not Stage.NEW:
            raise RuntimeError("this attempt was entered before: the loop gives the next one")
        self.stage = Stage.OVER
        while True:
            progress = self._progress = Progress()
            self._block = self._make_block(progress)
            try:
                connection = await self._block.__aenter__()
            except Exception as exc:
                failure = exc
            else:
                self.stage = Stage.ENTERED
                return connection
            try:
                if isinstance(failure, AcquireTimeoutError):
                    self._course.give_up(failure)
                if self._is_interrupted(failure):
                    self._course.give_up(self._interruption(failure))
                if not self._is_repeatable(failure):
                    raise failure
                await self._course.pause(failure, is_load=progress.is_connected)
            finally:
                del failure  # its traceback knows this frame

    def _make_block(self, progress: Progress) -> AbstractAsyncContextManager[ConnT]:
        shared, acquires, course = self._shared, self._acquires, self._course
        if not self._transacts:
            return connected(shared, acquires, course, progress)
        needs_evidence = not self._idempotent
        return in_transaction(shared, acquires, course, progress, needs_evidence=needs_evidence)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """End the block; whether its error is not to be raised.

        `RuntimeError`: it has not been entered, or was left before.
        """
        block, self._block = self._block, None
        if self.stage is not Stage.ENTERED or block is None:
            raise RuntimeError("this attempt has not been entered, or was left before")
        self.stage = Stage.OVER
        failure: BaseException | None = None
        try:
            try:
                if not await block.__aexit__(exc_type, exc, traceback):
                    failure = exc
            except BaseException as error:
                failure = error
            if failure is None:
                return True
            if isinstance(failure, Exception) and await self._is_settled(failure):
                return True
            if failure is exc:
                return False
            raise failure
        finally:
            if self.stage is Stage.OVER:
                self._course.end()
            del failure, exc  # their tracebacks know this frame

    async def _is_settled(self, failure: Exception) -> bool:
        """Whether nobody has to hear of an error with which the block ended. There are six cases:

        1. The transaction is committed: what failed is only the connection's way back.
        2. Whether it is, was not said, which does no harm: the block is run once more.
        3. Likewise, and it is found out: it is committed, or the block is run once more; or it
           can't be found out, and `CommitUnknown` is raised.
        4. The deadline has ended the block: the first error is raised.
        5. The error is one after which the block may be run once more.
        6. Any other error is the user's.
        """
        progress = self._progress
        if progress.is_committed:
            return True
        if self._is_unsaid(failure):
            if not self._is_harmless() and await self._is_committed(failure):
                return True
        elif not self._is_interrupted(failure) and not self._is_repeatable(failure):
            return False
        if progress.is_expired:
            self._course.give_up(self._interruption(failure))
        self.failure = failure
        self.stage = Stage.FAILED
        return True

    def _is_repeatable(self, failure: Exception) -> bool:
        return is_repeatable(failure, self._shared.adapter, read_only=self._read_only)

    def _is_interrupted(self, failure: Exception) -> bool:
        """Whether this is what became of what the deadline has cut off."""
        is_ours = isinstance(failure, TimeoutError) or self._is_repeatable(failure)
        return self._progress.is_expired and is_ours

    def _interruption(self, failure: Exception) -> TimeoutError:
        course = self._course
        text = f"attempt {course.number} was interrupted: {course.timeout:g} s for all are over"
        interruption = TimeoutError(text)
        interruption.__cause__ = failure
        return interruption

    def _is_unsaid(self, failure: Exception) -> bool:
        """Whether the block may be committed all the same. Without a transaction of ours, each of
        its statements may be."""
        if self._transacts:
            return self._progress.is_committing and not is_rolled_back(
                failure, self._shared.adapter
            )
        return not self._read_only and self._is_repeatable(failure)

    def _is_harmless(self) -> bool:
        """Whether the block may be run once more, be it committed or not."""
        evidence = self._progress.evidence
        return self._idempotent or (evidence is not None and evidence.xid is None)

    async def _is_committed(self, failure: Exception) -> bool:
        """`CommitUnknown`: it can't be found out."""
        evidence = self._progress.evidence
        if not self._transacts:
            what, words = "the block", "the adapter runs no transactions for attempts"
        elif evidence is None or evidence.xid is None:
            what, words = "the transaction", "the server does not tell what became of transactions"
        else:
            what = f"transaction {evidence.xid}"
            finding, words = await inquire(
                self._shared, self._acquires, self._course, evidence, evidence.xid
            )
            if finding is not Finding.UNKNOWN:
                return finding is Finding.COMMITTED
        raise CommitUnknown(
            f"the connection was lost while {what} was being committed, and nobody knows whether"
            f" that stands: {words}. Look for what it wrote before you run it again, or say"
            " idempotent=True where running it twice does no harm"
        ) from failure
