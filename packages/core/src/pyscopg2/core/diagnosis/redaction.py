"""An error in one line for people, without secrets."""

import re
from collections.abc import Collection

from pyscopg2.core.diagnosis.printable import printable

_TELLING = 4
"""A secret shorter than this one is told by the rest of the word that it is taken out of."""

_HIDDEN = "***"

_SHOWN = 200
"""Characters of a message."""

_READ = 4000
"""So many are looked through for secrets: a server may say megabytes."""


def describe(exc: BaseException, secrets: Collection[str] = ()) -> str:
    """One short line for people: the class and the first line of the message, without secrets.

    What can't be printed is escaped: nobody who writes a server's messages writes our log.
    """
    try:
        said = str(exc)
    except Exception:
        # A driver's, or a hook's, that can't even say what is wrong.
        said = ""
    line = _without(secrets, said).strip().partition("\n")[0]
    text = printable(line[:_SHOWN])[:_SHOWN]
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _without(secrets: Collection[str], text: str) -> str:
    """Nothing at all where a short one stands alone; within a word it tells nothing."""
    # The longest first, and all in one go: one may be a part of another.
    long = sorted((s for s in secrets if len(s) >= _TELLING), key=len, reverse=True)
    read = text[:_READ]
    parts = re.split("|".join(map(re.escape, long)), read) if long else [read]
    if long and len(read) < len(text):
        # The beginning of one may be what comes last.
        parts[-1] = parts[-1][: 1 - len(long[0])]
    short = "|".join(re.escape(s) for s in secrets if 0 < len(s) < _TELLING)
    alone = re.compile(rf"(?<!\w)(?:{short})(?!\w)")
    return _HIDDEN if short and any(map(alone.search, parts)) else _HIDDEN.join(parts)
