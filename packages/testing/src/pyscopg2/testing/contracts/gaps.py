"""What a driver may be unable to do, and what its users lose by that.

A subject declares such a gap: ``Subject(…, sqlstates=False)``. The tests that need what is missing
are skipped then, and what is lost stands at the end of each run. Nothing else may be missing.
"""

from collections.abc import Mapping

__all__ = ("GAP", "GAPS")

GAP = "pyscopg2-gap"
"""The name under which a test's report has them."""

GAPS: Mapping[str, str] = {
    "sqlstates": (
        "The driver does not tell SQLSTATEs: where a password is wrong or a database is missing, "
        "`ready` and `acquire` wait for their whole timeout instead of saying so at once; and a "
        "host that was demoted or shuts down is noticed by its next check, not by a user's error."
    ),
    "cancels_connects": (
        "A connect goes on when it is cancelled: while a host is frozen, each one that was given "
        "up keeps its socket until the host answers or the kernel gives up."
    ),
    "terminates_queries": (
        "A query goes on when its connection is terminated: on a frozen host its user waits for as "
        "long as the kernel does; neither the end of the manager nor that of a superseded master's "
        "connections reaches it."
    ),
}
"""What users lose, by the name of the field of `Subject` that declares it."""
