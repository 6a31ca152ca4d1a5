"""What the tests of psycopg's adapter share."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet_pool() -> Iterator[None]:
    """The pool logs exceptions as objects, and pytest keeps what is logged: so a connect that was
    cancelled would live in its traceback, and with it the socket, until the test has ended."""
    logger = logging.getLogger("psycopg.pool")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)
