"""One connection of aiopg's: how it is cut off, and what it has heard."""

from typing import Any

from pyscopg2.core.adapter.aiopg.errors import AiopgErrors

_CLOSED = 1
"""`closed` of a psycopg2 connection that was closed on our side; 2 is one that broke."""


def cut(connection: Any) -> None:
    """Close it, without a word to the server."""
    # Closed twice, aiopg stops watching a file descriptor that may be another connection's.
    if connection.closed != _CLOSED:
        connection.close()


def in_recovery(connection: Any, errors: AiopgErrors) -> bool | None:
    """Whether its server was in recovery when it last answered, as far as it said so."""
    try:
        status: str | None = connection.raw.get_parameter_status("in_hot_standby")
    except errors.base:  # it is closed
        return None
    return None if status is None else status == "on"
