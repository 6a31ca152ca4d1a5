"""What an error says of the host it came from: every rule about that stands here.

SQLSTATE codes: PostgreSQL manual, appendix A "PostgreSQL Error Codes".
"""

import re
from collections.abc import Callable, Collection, Iterator
from typing import cast

SqlState = Callable[[BaseException], str | None]
"""`Adapter.sqlstate`."""

_MISUSE = (TypeError, ValueError, LookupError, AttributeError, NameError, AssertionError)

_SUSPICIOUS = ("25006", "57P", "08")
"""A write on a read-only server; a shutdown or crash of the server; a broken connection."""

_HOPELESS = ("28", "3D000", "0P000")
"""Wrong password or refused by pg_hba.conf; unknown database; unknown role."""


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


_TELLING = 4
"""A secret shorter than this one is told by the rest of the word that it is taken out of."""

_HIDDEN = "***"


def describe(exc: BaseException, secrets: Collection[str] = ()) -> str:
    """One short line for people: the class and the first line of the message, without secrets."""
    text = _without(secrets, str(exc)).strip().partition("\n")[0][:200]
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _without(secrets: Collection[str], text: str) -> str:
    """Nothing at all where a short one stands alone; within a word it tells nothing."""
    # The longest first, and all in one go: one may be a part of another.
    long = sorted((s for s in secrets if len(s) >= _TELLING), key=len, reverse=True)
    parts = re.split("|".join(map(re.escape, long)), text) if long else [text]
    short = "|".join(re.escape(s) for s in secrets if 0 < len(s) < _TELLING)
    alone = re.compile(rf"(?<!\w)(?:{short})(?!\w)")
    return _HIDDEN if short and any(map(alone.search, parts)) else _HIDDEN.join(parts)


def _codes(exc: BaseException, sqlstate: SqlState) -> Iterator[str]:
    """The SQLSTATEs of an error and of those that led to it, or that it groups."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [exc]
    while todo:
        link = todo.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        if (code := sqlstate(link)) is not None:
            yield code
        todo += (link.__cause__, link.__context__)
        if isinstance(link, BaseExceptionGroup):
            todo += cast("BaseExceptionGroup[BaseException]", link).exceptions
