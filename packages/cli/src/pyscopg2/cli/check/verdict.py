"""What a server's facts mean: a pure function from `Facts` to findings."""

from collections.abc import Iterator

from pyscopg2.cli.check.facts import Facts
from pyscopg2.cli.check.finding import Finding, Kind
from pyscopg2.cli.check.pooler import Pooler

CLOCK_LIMIT = 1.0
"""Seconds by which two clocks may differ."""

_OF_SERVER = {"default", "environment variable", "configuration file", "command line"}
"""Values of ``pg_settings.source``: the server's own configuration. Others are our login's."""


def judge_facts(address: str, facts: Facts, pooler: Pooler) -> Iterator[Finding]:
    """In the order in which they are told."""
    if not facts.sees_statistics:
        yield Finding(
            Kind.NO_PG_MONITOR, "the login has neither pg_monitor nor pg_read_all_stats", address
        )
    if pooler is Pooler.TRANSACTION:
        yield Finding(
            Kind.POOLER_TRANSACTION,
            "a pooler in transaction mode stands between (PgBouncer, or one like it)",
            address,
        )
    elif pooler is Pooler.SESSION:
        yield Finding(Kind.POOLER, "a pooler stands between (PgBouncer, or one like it)", address)
    if facts.read_only_by is not None and not facts.in_recovery:
        by_server = facts.read_only_by in _OF_SERVER
        yield Finding(
            Kind.READ_ONLY_SERVER if by_server else Kind.READ_ONLY_LOGIN,
            f"default_transaction_read_only is on, set by: {facts.read_only_by}",
            address,
        )
    if facts.receives is False:
        yield Finding(Kind.RECEIVES_NOTHING, "the standby has no WAL receiver", address)
    if facts.is_paused:
        yield Finding(Kind.REPLAY_PAUSED, "the standby was told to replay nothing", address)
    if abs(facts.clock_offset) > CLOCK_LIMIT:
        ahead = "ahead of" if facts.clock_offset > 0 else "behind"
        yield Finding(
            Kind.CLOCK, f"its clock is {abs(facts.clock_offset):.1f} s {ahead} ours", address
        )
