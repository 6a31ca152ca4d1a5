"""What a server says of itself and of our login, beyond what the manager asks it anyway."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from asyncpg import Connection, Record

_LOGIN = """\
SELECT pg_catalog.pg_backend_pid() AS pid,
       pg_catalog.current_setting('server_version') AS version,
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) AS clock,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_statistics,
       (SELECT source FROM pg_catalog.pg_settings
        WHERE name OPERATOR(pg_catalog.=) 'default_transaction_read_only'
              AND setting OPERATOR(pg_catalog.=) 'on') AS read_only_by"""

_STANDBY = """\
SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_wal_receiver) AS receivers,
       pg_catalog.pg_is_wal_replay_paused() AS is_paused"""

_REFUSALS = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedFunctionError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)
"""Of clouds that have taken functions away, and of a promotion at this moment."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one server. None stands for what it did not tell."""

    version: str
    pid: int
    """Of the process that answers, as the server knows it."""
    in_recovery: bool
    sees_statistics: bool
    """Whether our login has what pg_read_all_stats gives; pg_monitor includes that."""
    read_only_by: str | None
    """What makes transactions read-only by default: ``pg_settings.source``. None: nothing does."""
    clock_offset: float
    """By how many seconds its clock is ahead of ours at least; negative: behind."""
    receives: bool | None = None
    """Of a standby: whether it streams from another server."""
    is_paused: bool | None = None
    """Of a standby: whether it was told to replay nothing."""


async def ask_facts(connection: "Connection[Record]") -> Facts:
    """Two short transactions. Raises asyncpg's errors, or `OSError`.

    Transactions, since a pooler may lead each statement elsewhere; of a level that a standby allows
    whatever the session's default.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        asked = time.time()
        (row,) = await connection.fetch(_LOGIN)
        told = time.time()
    standby = await _ask_standby(connection) if row["in_recovery"] else None
    return Facts(
        version=row["version"].partition(" ")[0],
        pid=row["pid"],
        in_recovery=row["in_recovery"],
        sees_statistics=row["sees_statistics"],
        read_only_by=row["read_only_by"],
        clock_offset=offset(row["clock"], asked, told),
        receives=None if standby is None else standby["receivers"] > 0,
        is_paused=None if standby is None else standby["is_paused"],
    )


async def _ask_standby(connection: "Connection[Record]") -> "Record | None":
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await connection.fetchrow(_STANDBY)
    except _REFUSALS:
        return None


def offset(clock: float, asked: float, told: float) -> float:
    """How far a clock is outside of what ours said before and after it was read, in seconds."""
    if clock < asked:
        return clock - asked
    return max(clock - told, 0.0)
