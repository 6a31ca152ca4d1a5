"""The logger that all of pyscopg2 writes to, and a way of writing that hurts nobody."""

import logging
import sys

logger = logging.getLogger("pyscopg2")

_told = False
"""Whether the user has heard that his logging system fails."""


def say(
    level: int,
    text: str,
    *arguments: object,
    exc: BaseException | None = None,
    host: str | None = None,
    role: str | None = None,
    cause: str | None = None,
) -> None:
    """Log a line. What the logging system raises, a filter of the user's above all, is told on
    stderr, once, and hurts nobody.

    For logs with fields the record has the attributes ``host`` (its address), ``role`` and
    ``cause`` (an error in one line): None where there is none.
    """
    global _told
    try:
        extra = {"host": host, "role": role, "cause": cause}
        logger.log(level, text, *arguments, exc_info=exc, extra=extra)
    except KeyboardInterrupt:
        raise
    except BaseException as failure:
        if not _told:
            _told = True
            name = type(failure).__name__
            _tell(f"pyscopg2: the logging system raised {name} for: {text % arguments}")


def _tell(text: str) -> None:
    try:
        print(text, file=sys.__stderr__)
    except (OSError, ValueError):
        pass  # it is closed
