"""What an error says of the host it came from: every rule about that stands here.

SQLSTATE codes: PostgreSQL manual, appendix A "PostgreSQL Error Codes".
"""

from collections.abc import Callable, Iterator
from typing import cast

SqlState = Callable[[BaseException], str | None]
"""`Adapter.sqlstate`."""

_MISUSE = (TypeError, ValueError, LookupError, AttributeError, NameError)

_SUSPICIOUS = ("25006", "57P", "08")
"""A write on a read-only server; a shutdown or crash of the server; a broken connection."""

_HOPELESS = ("28", "3D000", "0P000", "22023", "42501", "42602", "42704", "55P02")
"""Wrong password or refused by pg_hba.conf; unknown database; unknown role. Then what a server says
of a parameter of the DSN that becomes a setting of the session: a bad value; not allowed to this
login, as a database may be; a bad name; an unknown one; one that can't be set now."""


def is_misuse(exc: BaseException) -> bool:
    """Whether the caller's own arguments or code are wrong, so that no other host would help."""
    # A certificate that does not verify is an OSError and a ValueError: the host's fault.
    return isinstance(exc, _MISUSE) and not isinstance(exc, OSError)


def is_suspicious(exc: BaseException, sqlstate: SqlState) -> bool:
    """Whether an error that a user's block raised tells that the host's state has changed."""
    return any(code.startswith(_SUSPICIOUS) for code in _codes(exc, sqlstate))


def is_hopeless(exc: BaseException, sqlstate: SqlState) -> bool:
    """Whether waiting will not heal a failed check."""
    return is_misuse(exc) or any(code.startswith(_HOPELESS) for code in _codes(exc, sqlstate))


def sqlstate_of(exc: BaseException, sqlstate: SqlState) -> str | None:
    """Of this very error. An adapter that raises, or returns nonsense, knows nothing."""
    try:
        code: object = sqlstate(exc)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None
    return code if isinstance(code, str) else None


def _codes(exc: BaseException, sqlstate: SqlState) -> Iterator[str]:
    """The SQLSTATEs of an error and of those that led to it, or that it groups."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [exc]
    while todo:
        link = todo.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        if (code := sqlstate_of(link, sqlstate)) is not None:
            yield code
        todo += (link.__cause__, link.__context__)
        if isinstance(link, BaseExceptionGroup):
            todo += cast("BaseExceptionGroup[BaseException]", link).exceptions
