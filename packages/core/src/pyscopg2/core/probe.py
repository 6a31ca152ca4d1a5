"""The role query, and what a server answers to it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

RICH_QUERY = """\
SELECT concat_ws(' ',
    in_recovery,
    current_setting('transaction_read_only'),
    coalesce((CASE WHEN in_recovery THEN pg_last_wal_replay_lsn()
                   ELSE pg_current_wal_lsn() END)::text, '-'),
    CASE WHEN in_recovery THEN '-'
         ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint::text END,
    (SELECT system_identifier FROM pg_control_system()))
FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) AS state"""
"""One round trip, allowed to an unprivileged login (PostgreSQL manual, 9.28 "System
Administration Functions" and 9.27.12 "Control Data Functions").

The timeline is read off the name of the current WAL file, which is right at once after a
promotion; that of the last checkpoint is not. A standby's timeline cannot be read this way. OFFSET
keeps the planner from asking for the recovery state more than once.
"""

PLAIN_QUERY = "SHOW transaction_read_only"
"""For servers that refuse the rich form: what libpq's ``target_session_attrs`` asks, too."""

_REFUSALS = frozenset({"42501", "42883", "0A000"})
"""insufficient_privilege, undefined_function, feature_not_supported (manual, appendix A)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said of itself. None stands for what it did not tell."""

    read_only: bool
    in_recovery: bool | None = None
    lsn: int | None = None
    """WAL position in bytes: written on a primary, replayed on a standby."""
    timeline: int | None = None
    system_identifier: int | None = None

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
        in_recovery, read_only, lsn, timeline, system_identifier = str(text).split(" ")
        return Answer(
            read_only=_flag(read_only, "on", "off"),
            in_recovery=_flag(in_recovery, "t", "f"),
            lsn=None if lsn == "-" else _parse_lsn(lsn),
            timeline=None if timeline == "-" else int(timeline),
            system_identifier=int(system_identifier),
        )
    except ValueError:
        raise ValueError(f"not an answer to the role query: {str(text)[:100]!r}") from None


def parse_plain(text: object) -> Answer:
    """`ValueError` where this is not what `PLAIN_QUERY` returns."""
    return Answer(read_only=_flag(str(text), "on", "off"))


async def ask(
    fetch: Callable[[str], Awaitable[object]],
    sqlstate: Callable[[BaseException], str | None],
    *,
    rich: bool = True,
) -> Answer:
    """Ask a server for its role, in one round trip; two where it refuses the rich form."""
    if rich:
        try:
            return parse_rich(await fetch(RICH_QUERY))
        except Exception as exc:
            if sqlstate(exc) not in _REFUSALS:
                raise
    return parse_plain(await fetch(PLAIN_QUERY))


def _flag(text: str, true: str, false: str) -> bool:
    if text not in (true, false):
        raise ValueError(f"expected {true!r} or {false!r}, not {text[:100]!r}")
    return text == true


def _parse_lsn(text: str) -> int:
    """``16/B374D848`` to bytes (manual, 8.20 "pg_lsn Type")."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)
