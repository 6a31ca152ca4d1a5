"""Asking the master what became of a transaction."""

import asyncio

from pyscopg2.core.adapter.protocol import ConnT, PoolT
from pyscopg2.core.attempts.backoff import backoff
from pyscopg2.core.attempts.block import Progress, connected
from pyscopg2.core.attempts.course import Course
from pyscopg2.core.attempts.evidence import (
    CONFIRMATION_QUERY,
    Evidence,
    Finding,
    find,
    status_query,
)
from pyscopg2.core.attempts.repeatable import is_repeatable
from pyscopg2.core.attempts.shared import Acquires, Shared
from pyscopg2.core.diagnosis.error_class import sqlstate_of
from pyscopg2.core.diagnosis.redaction import describe
from pyscopg2.core.errors import AcquireTimeoutError

_RECOVERING = "55000"
"""object_not_in_prerequisite_state: it is not the master yet, or not any more."""


_WORDS = {
    Finding.COMMITTED: "it is committed, but no replica has confirmed that in time",
    Finding.NOT_COMMITTED: "",
    Finding.UNDER_WAY: "it was still in progress",
    Finding.UNKNOWN: "there was a crash, a restart or a promotion since, after which its number may"
    " have been used once more",
}
"""What stands in the way of knowing more."""


async def inquire(
    shared: Shared[PoolT, ConnT],
    acquires: Acquires[ConnT],
    course: Course,
    evidence: Evidence,
    xid: int,
) -> tuple[Finding, str]:
    """What became of the transaction ``xid``, and in words what stands in the way of knowing it.

    Asks whoever is master until the deadline, while the transaction is still in progress, or while
    nobody answers.
    """
    words = "nobody was there to be asked in time"
    tries = 0
    while course.left > 0:
        progress = Progress()
        finding = Finding.UNDER_WAY
        is_found = False
        try:
            async with connected(shared, acquires, course, progress) as connection:
                answer = await shared.adapter.fetch_scalar(connection, status_query(xid))
                finding = find(evidence, answer)
                words = _WORDS[finding]
                if finding is Finding.COMMITTED:
                    await shared.adapter.fetch_scalar(connection, CONFIRMATION_QUERY)
                is_found = finding is not Finding.UNDER_WAY
        except Exception as exc:
            if is_found:
                # What failed is only the connection's way back.
                return finding, words
            if progress.is_expired or isinstance(exc, AcquireTimeoutError):
                break
            words = f"the master was asked, and failed: {describe(exc, shared.secrets)}"
            is_early = sqlstate_of(exc, shared.adapter.sqlstate) == _RECOVERING
            if not is_early and not is_repeatable(exc, shared.adapter, read_only=False):
                break
        if is_found:
            return finding, words
        tries += 1
        await asyncio.sleep(min(backoff(tries), course.left))
    return Finding.UNKNOWN, words
