"""One run of a user's block: the connection, and the transaction around it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

from pyscopg2.core.adapter.protocol import ConnT, PoolT, RunsTransactions
from pyscopg2.core.attempts.course import Course
from pyscopg2.core.attempts.evidence import EVIDENCE_QUERY, REFUSALS, Evidence, parse_evidence
from pyscopg2.core.attempts.shared import Acquires, Shared


class Progress:
    """How far one run has come."""

    __slots__ = ("evidence", "is_committed", "is_committing", "is_connected", "is_expired")

    def __init__(self) -> None:
        self.is_connected = False
        self.is_committing = False
        """The COMMIT may have been sent."""
        self.is_committed = False
        """The transaction's block has ended well."""
        self.is_expired = False
        """The deadline has cut off the connection."""
        self.evidence: Evidence | None = None


@asynccontextmanager
async def connected(
    shared: Shared[PoolT, ConnT], acquires: Acquires[ConnT], course: Course, progress: Progress
) -> AsyncGenerator[ConnT]:
    """A connection, until the deadline: then it is terminated, and the task is cancelled, which
    becomes a `TimeoutError` here. In this order, so that no driver waits for a silent server."""
    async with acquires(timeout=course.left) as connection:
        progress.is_connected = True
        loop = asyncio.get_running_loop()
        scope = asyncio.timeout(None)

        def expire() -> None:
            progress.is_expired = True
            shared.adapter.terminate_connection(connection)
            scope.reschedule(loop.time())

        async with scope:
            timer = loop.call_at(course.when, expire)
            try:
                yield connection
            finally:
                # Before the release: from then on the connection may be somebody else's.
                timer.cancel()


@asynccontextmanager
async def in_transaction(
    shared: Shared[PoolT, ConnT],
    acquires: Acquires[ConnT],
    course: Course,
    progress: Progress,
    *,
    needs_evidence: bool,
) -> AsyncGenerator[ConnT]:
    """`connected`, of an adapter that `RunsTransactions`, in one that is committed with the end of
    the block. The block's own error comes first, whatever its end raises.

    ``needs_evidence``: before the COMMIT, what will tell what became of it.
    """
    failure: BaseException | None = None
    async with connected(shared, acquires, course, progress) as connection:
        needs_evidence = needs_evidence and await _tells_evidence(shared, connection)
        try:
            async with cast("RunsTransactions[Any]", shared.adapter).transaction(connection):
                try:
                    yield connection
                except BaseException as exc:
                    failure = exc
                    raise
                if needs_evidence:
                    said = await shared.adapter.fetch_scalar(connection, EVIDENCE_QUERY)
                    progress.evidence = parse_evidence(said)
                progress.is_committing = True
            progress.is_committed = True
        except Exception as exc:
            if failure is None or failure is exc:
                raise
            # A rollback that failed, where there is nothing left to be rolled back.
        else:
            failure = None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback knows this frame


async def _tells_evidence(shared: Shared[PoolT, ConnT], connection: ConnT) -> bool:
    if shared.tells_evidence is None:
        try:
            await shared.adapter.fetch_scalar(connection, EVIDENCE_QUERY)
        except Exception as exc:
            if shared.adapter.sqlstate(exc) not in REFUSALS:
                raise
            shared.tells_evidence = False
        else:
            shared.tells_evidence = True
    return shared.tells_evidence
