"""The DSN that a command is given: from its argument, or from the environment."""

import os
from collections.abc import Sequence

import click

from pyscopg2.asyncpg import AsyncpgAdapter, PoolManager
from pyscopg2.core.dsn import Resolved, Surroundings, resolve
from pyscopg2.core.errors import DsnError

VARIABLE = "PYSCOPG2_DSN"
"""Where the DSN is looked for that is no argument. Without it either, all comes from where libpq
takes it: PGHOST and its like, PGSERVICE."""


def dsn_of(arguments: Sequence[str]) -> str:
    """`click.UsageError`: there are several. Its text shows none of them: one may be a password."""
    if len(arguments) > 1:
        raise click.UsageError("there is one DSN: put quotes around it where it has spaces")
    return arguments[0] if arguments else os.environ.get(VARIABLE, "")


def resolve_dsn(dsn: str) -> Resolved:
    """`click.UsageError`: libpq would refuse it. Its text shows nothing of it."""
    try:
        return resolve(dsn, Surroundings.here(), extra_params=AsyncpgAdapter.extra_params)
    except DsnError as exc:
        raise click.UsageError(f"DSN: {exc}") from None


def make_manager(dsn: str, *, refresh_delay: float = 1.0, refresh_timeout: float) -> PoolManager:
    """One that has no connections but those of its checks. Times are in seconds.

    `click.UsageError`: the DSN demands what asyncpg can't do, or libpq would refuse it.
    """
    try:
        return PoolManager(
            dsn,
            refresh_delay=refresh_delay,
            refresh_timeout=refresh_timeout,
            pool_factory_kwargs={"min_size": 0, "max_size": 1, "statement_cache_size": 0},
        )
    except OSError as exc:
        # A certificate of the client's. An SSLError is a ValueError, too, at times.
        reason = exc.strerror or type(exc).__name__
        raise click.UsageError(f"DSN: a file that it names can't be used: {reason}") from None
    except ValueError as exc:
        raise click.UsageError(f"DSN: {exc}") from None
