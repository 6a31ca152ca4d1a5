"""Text -> one `Target` per host, as libpq reads it."""

from pyscopg2.core.dsn.parsing import parse_dsn
from pyscopg2.core.dsn.resolution import Resolved, resolve
from pyscopg2.core.dsn.surroundings import Surroundings
from pyscopg2.core.dsn.target import Target

__all__ = ("Resolved", "Surroundings", "Target", "parse_dsn", "resolve")
