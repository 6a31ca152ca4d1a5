"""Every error that pyscopg2 raises by itself.

Errors of the driver pass through as they are; those below are what a manager has to say.
"""


class PyscopgError(Exception):
    """The root of the tree: `except PyscopgError` catches all that a manager says by itself."""


class DsnError(PyscopgError, ValueError):
    """A DSN that libpq would refuse, or with a host's name that can be none. Says where and why,
    never a password."""


class AcquireTimeoutError(PyscopgError, TimeoutError):
    """No connection within the acquire's deadline.

    The message says what was asked and for how long, and of each host that could have served it
    why it did not; of the others their states. ``__cause__`` is the driver's own error where one
    stood in the way, of a host that could have served: a connect that failed, or, while nobody has
    the role, what is wrong with a host that may have it. None where all connections are in use.
    """


class NotReadyError(PyscopgError, TimeoutError):
    """`ready` or a `wait_*` ran out of time; the message shows each host's state.

    ``__cause__`` is the driver's own error of a host that fails and that the wait was for, if there
    is one; of one that fails in a way that waiting does not heal (a wrong password, an unknown
    database, a bad option) rather than of another.
    """


class PoolManagerClosedError(PyscopgError, RuntimeError):
    """The manager is closed or closing, and hands out nothing more."""


class CommitUnknown(PyscopgError):  # noqa: N818  no error of anybody's: it may all be well
    """A block of `attempts` may be committed, or not, and that can't be found out.

    The connection was lost, or time was out, while its COMMIT was under way. The message says why
    the server could not be asked, or its word not be believed, and the number of the transaction
    where that is known. ``__cause__`` is the driver's own error. Look for what the block wrote
    before you run it again.
    """
