"""The login, and what stands in its way."""

import inspect
import ssl
from typing import TYPE_CHECKING, Any

import asyncpg

from pyscopg2.asyncpg import AsyncpgAdapter
from pyscopg2.cli.check import deadlines
from pyscopg2.cli.check.finding import Finding, Kind
from pyscopg2.core.diagnosis.redaction import describe
from pyscopg2.core.dsn import Target

if TYPE_CHECKING:
    from asyncpg import Connection, Record

DEMANDS_TLS = ("require", "verify-ca", "verify-full")
"""Values of ``sslmode``."""

OPTIONS: dict[str, object] = {"statement_cache_size": 0, "timeout": deadlines.LOGIN}
"""Of asyncpg: a pooler may be between."""

_ADAPTER = AsyncpgAdapter()

_BY_CODE = {
    "28P01": Kind.PASSWORD,
    "28000": Kind.LOGIN_REFUSED,
    "3D000": Kind.DATABASE_UNKNOWN,
    "42501": Kind.DATABASE_REFUSED,
    "53300": Kind.FULL,
    "57P03": Kind.NOT_READY,
    "57P01": Kind.NOT_READY,
    "22023": Kind.PARAMETER,
    "42602": Kind.PARAMETER,
    "42704": Kind.PARAMETER,
    "55P02": Kind.PARAMETER,
}
"""By SQLSTATE (PostgreSQL manual, appendix A "PostgreSQL Error Codes")."""

_BY_WORDS = (
    ("28000", "no encryption", Kind.TLS_DEMANDED),
    ("28000", "SSL off", Kind.TLS_DEMANDED),
    ("28000", "client certificate", Kind.CLIENT_CERTIFICATE),
    ("08P01", "SSL required", Kind.TLS_DEMANDED),
    ("08P01", "no such database", Kind.DATABASE_UNKNOWN),
    ("08P01", "no such user", Kind.PASSWORD),
    ("08P01", "authentication failed", Kind.PASSWORD),
    ("08P01", "auth failed", Kind.PASSWORD),
    ("08P01", "no more connections allowed", Kind.FULL),
    ("08P01", "unsupported startup parameter", Kind.PARAMETER),
)
"""What one code is used for beside others: by servers up to 13 ("SSL off") and later, and by
PgBouncer, whose code is 08P01 whatever is wrong."""


async def log_in(target: Target) -> "Connection[Record]":
    """A connection with what the DSN says of TLS and the login. Raises what asyncpg raises."""
    arguments: dict[str, Any] = _ADAPTER.pool_arguments(target, OPTIONS)
    known = inspect.signature(asyncpg.connect).parameters
    to_connect = {name: value for name, value in arguments.items() if name in known}
    return await asyncpg.connect(**to_connect)


def refusal(exc: BaseException, target: Target) -> Finding:
    """What an error of `log_in` means."""
    said = describe(exc, target.secrets)
    kind = _kind(exc)
    if kind is Kind.LOGIN_UNANSWERED:
        said = f"the login did not end within {deadlines.LOGIN:g} s"
    elif kind is Kind.PASSWORD and not target.password:
        said = f"{said}; there is no password in the DSN, the environment or a password file"
    return Finding(kind, said, target.address)


def _kind(exc: BaseException) -> Kind:
    if isinstance(exc, asyncpg.PostgresError):
        text = str(exc)
        for code, words, kind in _BY_WORDS:
            if exc.sqlstate == code and words in text:
                return kind
        return _BY_CODE.get(exc.sqlstate, Kind.LOGIN_FAILED)
    # An SSLError is an OSError; one of a certificate is a ValueError, too.
    if isinstance(exc, ssl.SSLCertVerificationError):
        return Kind.CERTIFICATE
    if isinstance(exc, ssl.SSLError):
        return Kind.TLS_FAILED
    if isinstance(exc, TimeoutError):
        return Kind.LOGIN_UNANSWERED
    # asyncpg's own for parameters is both an InterfaceError and a ValueError.
    if isinstance(exc, ValueError | TypeError | FileNotFoundError | PermissionError):
        return Kind.PARAMETER
    return Kind.LOGIN_FAILED
