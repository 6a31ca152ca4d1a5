"""The log: one line for each change of a host's state, and none for what stays as it is."""

import logging
from collections.abc import Sequence

from pyscopg2.core.topology import Change, Role, Topology

logger = logging.getLogger("pyscopg2")

_LEVELS = {Role.SUPERSEDED: logging.WARNING, Role.UNAVAILABLE: logging.WARNING}


def write(_: Topology, changes: Sequence[Change]) -> None:
    """The store's listener."""
    for old, new in changes:
        if old.role is not new.role or old.superseded_by != new.superseded_by:
            logger.log(_LEVELS.get(new.role, logging.INFO), "%s (was %s)", new, old.role.value)
