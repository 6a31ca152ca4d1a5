"""The log: one line for each change of a host's state, and none for what stays as it is."""

import logging
from collections.abc import Sequence

from pyscopg2.core.diagnosis.log import say
from pyscopg2.core.topology.host_state import Role
from pyscopg2.core.topology.snapshot import Change, Topology

_LEVELS = {
    Role.SUPERSEDED: logging.WARNING,
    Role.RIVAL: logging.WARNING,
    Role.FOREIGN: logging.WARNING,
    Role.UNAVAILABLE: logging.WARNING,
}


def write(_: Topology, changes: Sequence[Change]) -> None:
    """The store's listener."""
    for old, new in changes:
        if old.role is not new.role or old.yields_to != new.yields_to:
            say(_LEVELS.get(new.role, logging.INFO), "%s (was %s)", new, old.role.value)
