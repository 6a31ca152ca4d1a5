"""Every error that pyscopg2 raises by itself.

Errors of the driver pass through as they are; those below are what a manager has to say.
"""


class PyscopgError(Exception):
    """The root of the tree: `except PyscopgError` catches all that a manager says by itself."""


class DsnError(PyscopgError, ValueError):
    """A DSN that libpq would refuse. Names the place and the reason, never a password."""


class AcquireTimeoutError(PyscopgError, TimeoutError):
    """No connection within the acquire's deadline.

    The message shows each host's state and last error. ``__cause__`` is the driver's own error
    where one stood in the way (a connect that failed, a wrong password).
    """


class NotReadyError(PyscopgError, TimeoutError):
    """`ready` or a `wait_*` ran out of time; the message shows each host's state.

    ``__cause__`` is the driver's own error where every host fails in a way that waiting does
    not heal (a wrong password, an unknown database, a bad option).
    """


class PoolManagerClosedError(PyscopgError, RuntimeError):
    """The manager is closed or closing, and hands out nothing more."""
