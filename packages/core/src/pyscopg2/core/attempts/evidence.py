"""What can be found out of a COMMIT whose answer was lost.

PostgreSQL tells what became of a transaction by its number (`pg_xact_status`; manual, 9.27.10
"Transaction ID and Snapshot Information Functions"). A number may be given out once more, though:
after a promotion, since the new master may never have heard of it, and after a crash, where nothing
of its transaction had reached the disk. So a transaction's number comes with what says of which
server's life it is.
"""

import enum
from dataclasses import dataclass

_LIFE = """\
(SELECT system_identifier FROM pg_catalog.pg_control_system()),
    ('x' OPERATOR(pg_catalog.||) pg_catalog."left"(
        pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8))::bit(32)::bigint,
    (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())
        OPERATOR(pg_catalog.*) 1000000)::bigint,
    (SELECT (pg_catalog.date_part('epoch', stats_reset) OPERATOR(pg_catalog.*) 1000000)::bigint
     FROM pg_catalog.pg_stat_bgwriter)"""

EVIDENCE_QUERY = f"""\
SELECT pg_catalog.concat_ws(' ',
    coalesce(pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text, '-'),
    {_LIFE})"""
"""Within a transaction, right before its COMMIT. One round trip, allowed to an unprivileged login,
from PostgreSQL 13 on. For how a primary's timeline is read, see the notes on the role query.

A server that has recovered from a crash has reset its statistics (manual, 27.2.1 "Statistics
Collection Configuration"), and tells since when they are counted; the postmaster lives on.
"""

_STATUS_QUERY = """\
SELECT pg_catalog.concat_ws(' ',
    CASE WHEN xid OPERATOR(pg_catalog.>=)
              pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
         THEN 'in-progress'
         ELSE coalesce(pg_catalog.replace(pg_catalog.pg_xact_status(xid), ' ', '-'), '-') END,
    {life})
FROM (SELECT pg_catalog.xid8 '{xid:d}' AS xid OFFSET 0) AS asked"""

CONFIRMATION_QUERY = "SELECT pg_catalog.pg_logical_emit_message(true, 'pyscopg2', '')::text"
"""A commit of its own, which writes next to nothing: where it has come through, all that were there
before it are as safe as the server's settings make commits. A COMMIT that was waiting for its
replicas when its connection ended is "committed", and known to no replica, maybe (manual, 27.2.8
"Synchronous Replication"); a promotion would lose it. Allowed to every login."""

REFUSALS = frozenset({"42501", "42883", "0A000", "55000"})
"""insufficient_privilege, undefined_function, feature_not_supported; and Aurora's answer to
functions of the write-ahead log (manual, appendix A)."""


@dataclass(frozen=True, slots=True)
class Life:
    """Of a server, in which no number of a transaction is given out twice."""

    system_identifier: int
    timeline: int
    started_at: int
    """When its postmaster was started, in microseconds."""
    counts_since: int
    """Since when it counts its statistics, in microseconds."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of a transaction that is about to be committed."""

    xid: int | None
    """Its number; None: it has written nothing."""
    life: Life


class Finding(enum.Enum):
    """What became of a transaction."""

    COMMITTED = "committed"
    NOT_COMMITTED = "not committed"
    UNDER_WAY = "in progress"
    UNKNOWN = "unknown"


def parse_evidence(text: object) -> Evidence | None:
    """None: it is no answer to `EVIDENCE_QUERY`."""
    xid, _, life = str(text).partition(" ")
    try:
        return Evidence(None if xid == "-" else int(xid), _parse_life(life))
    except ValueError:
        return None


def status_query(xid: int) -> str:
    """What became of the transaction with this number. One round trip, outside of it."""
    return _STATUS_QUERY.format(life=_LIFE, xid=xid)


def find(evidence: Evidence, answer: object) -> Finding:
    """What a master's answer to `status_query` says of the transaction of the evidence.

    1. The same life of the same server: its word counts. One that does not show in a snapshot yet
       is in progress.
    2. It is no answer; of another system; or of a timeline before the transaction's: unknown.
    3. Another life, after a crash or a promotion, and "committed": it may be the transaction of
       somebody who got the same number since. Unknown.
    4. Another life, and anything else: not committed. Had it been committed in the history that
       this server goes on with, its number would be known as such, and given to nobody.
    """
    status, _, life = str(answer).partition(" ")
    try:
        now = _parse_life(life)
    except ValueError:
        return Finding.UNKNOWN
    before = evidence.life
    if now == before:
        return _STATUSES.get(status, Finding.UNKNOWN)
    if now.system_identifier != before.system_identifier or now.timeline < before.timeline:
        return Finding.UNKNOWN
    is_known = status in _STATUSES and status != "committed"
    return Finding.NOT_COMMITTED if is_known else Finding.UNKNOWN


_STATUSES = {
    "committed": Finding.COMMITTED,
    "aborted": Finding.NOT_COMMITTED,
    "in-progress": Finding.UNDER_WAY,
}


def _parse_life(text: str) -> Life:
    system, timeline, started_at, counts_since = text.split(" ")
    return Life(int(system), int(timeline), int(started_at), int(counts_since))
