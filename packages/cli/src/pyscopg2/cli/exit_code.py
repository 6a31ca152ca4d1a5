"""What the command's exit codes mean. 1 is Python's own: an error that nobody expected."""

import enum


class ExitCode(enum.IntEnum):
    """Of all three subcommands; `click` itself ends with 2 too, for arguments that it refuses."""

    FINE = 0
    """Nothing is wrong; there may be notes. `watch`: it was ended."""
    USAGE = 2
    """The arguments, or a DSN that libpq or asyncpg would refuse."""
    WARNED = 3
    """`check`: warnings, and nothing worse."""
    BROKEN = 4
    """`check`: something is broken. `status`: there is no master."""
