"""Why a server refused a connect, by what it said.

libpq keeps the SQLSTATE of a failed connect to itself: the drivers that use it have the message
alone.
"""

import re

_REFUSALS = (
    (re.compile(r"FATAL: +password authentication failed for user "), "28P01"),
    (re.compile(r"FATAL: +no pg_hba\.conf entry for "), "28000"),
    (re.compile(r"FATAL: +pg_hba\.conf rejects connection for "), "28000"),
    (re.compile(r'FATAL: +role ".{0,64}" does not exist'), "28000"),
    (re.compile(r'FATAL: +role ".{0,64}" is not permitted to log in'), "28000"),
    (re.compile(r'FATAL: +database ".{0,64}" does not exist'), "3D000"),
)
"""What stands in quotes is bounded, as names are in PostgreSQL: a text that a hostile server has
made up takes no longer than another of its length."""


def refusal_sqlstate(said: str) -> str | None:
    """The SQLSTATE of a failed connect, from the driver's message; None where it tells of none.

    A server that speaks another language than English is not understood. Of a message with several
    refusals, a wrong password counts most, then the login, then the database.
    """
    return next((code for refusal, code in _REFUSALS if refusal.search(said)), None)
