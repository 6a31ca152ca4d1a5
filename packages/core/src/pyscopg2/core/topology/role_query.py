"""The role query, and what a server answers to it."""

import ipaddress
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pyscopg2.core.wal import end_of_record, parse_lsn

RICH_QUERY = """\
SELECT pg_catalog.concat_ws(' ',
    in_recovery,
    CASE WHEN in_recovery OR pg_catalog.current_setting('default_transaction_read_only')
                             OPERATOR(pg_catalog.=) 'off' THEN 'off'
         ELSE (SELECT CASE WHEN source OPERATOR(pg_catalog.=) ANY (
                               '{default,environment variable,configuration file,command line}'
                               ::pg_catalog.text[])
                           THEN 'server' ELSE 'login' END
               FROM pg_catalog.pg_settings
               WHERE name OPERATOR(pg_catalog.=) 'default_transaction_read_only') END,
    coalesce((CASE WHEN in_recovery THEN pg_catalog.pg_last_wal_replay_lsn()
                   ELSE pg_catalog.pg_current_wal_lsn() END)::pg_catalog.text, '-'),
    CASE WHEN in_recovery
         THEN (SELECT greatest(timeline_id, min_recovery_end_timeline)::bigint
               FROM pg_catalog.pg_control_checkpoint(), pg_catalog.pg_control_recovery())
         ELSE pg_catalog.concat('x', pg_catalog."left"(
                  pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8))
              ::bit(32)::bigint END,
    (SELECT system_identifier FROM pg_catalog.pg_control_system()),
    (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())
        OPERATOR(pg_catalog.*) 1000000)::bigint,
    coalesce(pg_catalog.host(pg_catalog.inet_server_addr()) OPERATOR(pg_catalog.||) ':'
             OPERATOR(pg_catalog.||) pg_catalog.inet_server_port()::pg_catalog.text, '-'),
    CASE WHEN in_recovery
         THEN coalesce((SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)::pg_catalog.text,
                       '-')
         ELSE pg_catalog.concat_ws(',',
             (SELECT pg_catalog.concat_ws(',', inserted, file_offset)
              FROM pg_catalog.pg_current_wal_insert_lsn() AS inserted,
                   pg_catalog.pg_walfile_name_offset(inserted)),
             pg_catalog.current_setting('wal_block_size'),
             pg_catalog.pg_current_wal_flush_lsn(),
             pg_catalog.hashtextextended(
                 pg_catalog.pg_current_snapshot()::pg_catalog.text COLLATE "C", 0),
             pg_catalog.current_setting('wal_writer_delay')) END)
FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery OFFSET 0) AS state"""
"""One round trip, allowed to an unprivileged login (PostgreSQL manual, 9.28 "System
Administration Functions" and 9.27.12 "Control Data Functions").

A primary's timeline is read off the name of the current WAL file, which is right at once after a
promotion; that of its last checkpoint is not. A standby tells the highest timeline that it has made
sure of: the true one, or an older one for a while. All names are qualified, since a user's
``search_path`` may lead elsewhere. OFFSET keeps the planner from asking for the recovery state more
than once.

The rest is for `lsn_clock`: a primary tells its insert LSN and where in its segment that is, its
flush LSN, what stands for the snapshot of this very query, and how often asynchronous commits are
flushed. A standby tells the timeline that it receives, and so follows, to logins that have
pg_read_all_stats (manual, 27.2.5 "pg_stat_wal_receiver").

What makes transactions read-only by default is told, too: the server's own configuration, or what
is set for the login or the database. The latter stands in the catalog, which is the same on all
hosts of a cluster, and so says nothing of this one.
"""

PLAIN_QUERY = "SHOW transaction_read_only"
"""For servers that refuse the rich form: what libpq's ``target_session_attrs`` asks, too."""

_LASTING = frozenset({"42501", "42883", "0A000"})
"""insufficient_privilege, undefined_function, feature_not_supported (manual, appendix A)."""

_PASSING = frozenset({"55000"})
"""object_not_in_prerequisite_state: Aurora's answer to functions of the WAL, and any server's whose
recovery begins or ends just now."""

_DELAY = re.compile(r"(\d+)(ms|s)")

_UNITS = {"ms": 0.001, "s": 1.0}
"""``wal_writer_delay`` is from 1 ms to 10 s."""

ASK_AGAIN = 10.0
"""Seconds until a server that refused the rich form is asked for it again."""


@dataclass(frozen=True, slots=True)
class WalState:
    """How far a primary's log is."""

    insert: int
    """Where its last record ends, written or not, in bytes."""
    flush: int
    """Up to where it is on disk, in bytes."""
    snapshot: int
    """Stands for the transactions that are done: while it is the same, nothing was committed."""
    flush_delay: float
    """Seconds after which an asynchronous commit is on disk at the latest: three times
    ``wal_writer_delay`` (manual, 28.4 "Asynchronous Commit")."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said of itself. None stands for what it did not tell."""

    read_only: bool
    """The server takes no writes: it is in recovery, or its own configuration says so."""
    in_recovery: bool | None = None
    lsn: int | None = None
    """WAL position in bytes: written on a primary, replayed on a standby."""
    timeline: int | None = None
    """The one that a primary writes. Of a standby, the highest that it has made sure of."""
    system_identifier: int | None = None
    started_at: int | None = None
    """When its postmaster was started, in microseconds: two addresses of one system that tell the
    same lead to one server."""
    address: str | None = None
    """The address and port, divided by a colon, that the server knows as its own end of this
    connection; None over a Unix-domain socket."""
    login_is_read_only: bool = False
    """A primary that takes writes, but our login's transactions are read-only by default."""
    wal: WalState | None = None
    """Of a primary."""
    receives: int | None = None
    """The timeline that a standby receives; None where it receives nothing, or our login may not
    know."""

    @property
    def writable(self) -> bool:
        return not self.read_only and not self.in_recovery

    @property
    def rich(self) -> bool:
        """Whether the server told enough for superseded masters to be recognised."""
        return self.system_identifier is not None


def parse_rich(text: object) -> Answer:
    """`ValueError` where this is not what `RICH_QUERY` returns."""
    try:
        in_recovery, read_only, lsn, timeline, system, started_at, address, wal = str(text).split(
            " "
        )
        if read_only not in ("off", "server", "login"):
            raise ValueError
        standby = _flag(in_recovery, "t", "f")
        return Answer(
            read_only=standby or read_only == "server",
            in_recovery=standby,
            lsn=None if lsn == "-" else parse_lsn(lsn),
            timeline=int(timeline),
            system_identifier=int(system),
            started_at=int(started_at),
            address=_parse_address(address),
            login_is_read_only=read_only == "login",
            wal=None if standby else _parse_wal(wal),
            receives=int(wal) if standby and wal != "-" else None,
        )
    except ValueError:
        raise ValueError(f"not an answer to the role query: {str(text)[:100]!r}") from None


def parse_plain(text: object) -> Answer:
    """`ValueError` where this is not what `PLAIN_QUERY` returns."""
    return Answer(read_only=_flag(str(text), "on", "off"))


class RoleQuery:
    """Asks one connection's server for its role, in the form that it takes.

    What a server refuses now it may tell later: after a promotion, or when a privilege was granted.
    So the rich form is tried again when the role changes, and every `ASK_AGAIN` seconds.
    """

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[object]],
        sqlstate: Callable[[BaseException], str | None],
    ) -> None:
        self._fetch = fetch
        self._sqlstate = sqlstate
        self._refused_at: float | None = None
        """When the rich form was last refused for good, in seconds; None where it was not."""
        self._plain: Answer | None = None
        """The last answer to the plain form."""

    async def ask(self, now: float) -> Answer:
        """One round trip; two where the rich form is refused. ``now``: seconds, on any clock."""
        if self._refused_at is None or now - self._refused_at >= ASK_AGAIN:
            return await self._ask_rich(now)
        before = self._plain
        self._plain = parse_plain(await self._fetch(PLAIN_QUERY))
        return self._plain if self._plain == before else await self._ask_rich(now)

    async def _ask_rich(self, now: float) -> Answer:
        try:
            answer = parse_rich(await self._fetch(RICH_QUERY))
        except Exception as exc:
            code = self._sqlstate(exc)
            if code not in _LASTING | _PASSING:
                raise
            self._refused_at = now if code in _LASTING else None
        else:
            self._refused_at = None
            return answer
        self._plain = parse_plain(await self._fetch(PLAIN_QUERY))
        return self._plain


def _flag(text: str, true: str, false: str) -> bool:
    if text not in (true, false):
        raise ValueError(f"expected {true!r} or {false!r}, not {text[:100]!r}")
    return text == true


def _parse_wal(text: str) -> WalState:
    insert, offset, block_size, flush, snapshot, delay = text.split(",")
    return WalState(
        end_of_record(parse_lsn(insert), int(offset), int(block_size)),
        parse_lsn(flush),
        int(snapshot),
        3 * _parse_delay(delay),
    )


def _parse_delay(text: str) -> float:
    """What `SHOW` shows of a time, in seconds."""
    match = _DELAY.fullmatch(text)
    if match is None:
        raise ValueError
    return int(match[1]) * _UNITS[match[2]]


def _parse_address(text: str) -> str | None:
    address, _, port = text.rpartition(":")
    if not address:
        return None
    return f"{ipaddress.ip_address(address)}:{int(port)}"
