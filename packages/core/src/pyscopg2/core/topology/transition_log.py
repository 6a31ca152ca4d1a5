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
            say(
                _level(old.role, new.role),
                "%s (was %s)",
                new,
                old.role.value,
                host=new.address,
                role=new.role.value,
                cause=new.reason or None,
            )


def _level(old: Role, new: Role) -> int:
    """A host that becomes the master where it was something else is as loud as one that is lost:
    programs that show warnings alone show both ends of a failover."""
    if new is Role.MASTER and old is not Role.UNKNOWN:
        return logging.WARNING
    return _LEVELS.get(new, logging.INFO)
