"""What may be tried again, by the error that it ended with: every rule about that stands here.

SQLSTATE codes: PostgreSQL manual, appendix A "PostgreSQL Error Codes".
"""

import errno
from typing import Any, cast

from pyscopg2.core.adapter.protocol import Adapter, TellsLoss
from pyscopg2.core.diagnosis.error_class import sqlstate_of
from pyscopg2.core.errors import PyscopgError

_LOST = ("08", "57P01", "57P02", "57P03", "57P05")
"""A broken connection; a server that was told to stop, has crashed, or does not let anybody in yet;
a session that was ended for being idle."""

_DEMOTED = ("25006",)
"""A write on a server that takes none: it was the master."""

_CONFLICTS = ("40001", "40P01")
"""Two transactions were in each other's way, and the server has rolled this one back: a
serialization failure, a deadlock (manual, 13.5 "Serialization Failure Handling")."""

_NOT_SAID = ("08", "57P")
"""Of a COMMIT: the connection or the server ended, and the server did not say what became of it.
With synchronous replication it may stand, also where a shutdown (57P01) ended the wait."""

_BROKEN = "08006"
"""Stands for an error without a SQLSTATE that tells of a broken connection."""

_NETWORK = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.ENOTCONN,
        errno.EPIPE,
        errno.ESHUTDOWN,
        errno.ETIMEDOUT,
    }
)
"""What the kernel says of a connection that is lost. A timeout of the program's has no number."""


def is_lost(exc: BaseException, adapter: Adapter[Any, Any]) -> bool:
    """Whether the connection or its host was lost."""
    return _all_start_with((*_LOST, *_DEMOTED), exc, adapter)


def is_repeatable(exc: BaseException, adapter: Adapter[Any, Any], *, read_only: bool) -> bool:
    """Whether the same block may end well, if it is run once more."""
    # A read that writes fails everywhere.
    demoted = () if read_only else _DEMOTED
    return _all_start_with((*_LOST, *demoted, *_CONFLICTS), exc, adapter)


def is_rolled_back(exc: BaseException, adapter: Adapter[Any, Any]) -> bool:
    """Whether the server has said, with the error of a COMMIT, that nothing is committed."""
    return all(code is not None and not code.startswith(_NOT_SAID) for code in _codes(exc, adapter))


def _all_start_with(known: tuple[str, ...], exc: BaseException, adapter: Adapter[Any, Any]) -> bool:
    return all(code is not None and code.startswith(known) for code in _codes(exc, adapter))


def _codes(
    exc: BaseException | None, adapter: Adapter[Any, Any], seen: frozenset[int] = frozenset()
) -> list[str | None]:
    """What an error comes from, as a SQLSTATE: of a group, of each of its members.

    The first link counts that tells anything, from the error down its causes. Not its context: an
    error that is raised while another is handled is somebody's own. None: nothing is known.

    ``seen``: those on the way here, since causes may go round in a circle. Two members of a group
    may have one cause.
    """
    while exc is not None and id(exc) not in seen:
        seen |= {id(exc)}
        if isinstance(exc, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", exc)
            return [code for each in group.exceptions for code in _codes(each, adapter, seen)]
        # A cancellation, and the like, is nobody's failure. And what a manager says by itself is
        # its last word: the connect that failed is only the cause.
        if isinstance(exc, PyscopgError) or not isinstance(exc, Exception):
            break
        code = sqlstate_of(exc, adapter.sqlstate)
        if code is not None:
            return [code]
        if _is_broken(exc, adapter):
            return [_BROKEN]
        exc = exc.__cause__
    return [None]


def _is_broken(exc: Exception, adapter: Adapter[Any, Any]) -> bool:
    if isinstance(exc, ConnectionError) or (isinstance(exc, OSError) and exc.errno in _NETWORK):
        return True
    return isinstance(adapter, TellsLoss) and adapter.is_lost_error(exc)
