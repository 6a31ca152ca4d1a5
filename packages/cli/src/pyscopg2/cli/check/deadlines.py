"""How long each stage of a check may take, in seconds. All hosts are checked at once."""

NAME = 1.0
"""To resolve the host's name."""

CONNECT = 1.0
"""For the kernel there to accept a connection."""

GREETING = 0.7
"""For the first byte that the server says."""

NUDGE = 0.3
"""For one more byte, after an end of line, from a server of another protocol."""

LOGIN = 1.5
"""For TLS and the login."""

FACTS = 1.0
"""For what is asked then."""

POOLER = 1.0
"""To find out how a pooler works."""

CHECK = 1.0
"""The manager's own check: its ``refresh_timeout``."""

ALL = 2.5
"""For all of it: with Python's own start that is less than 3."""
