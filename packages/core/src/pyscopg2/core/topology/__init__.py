"""What is known of the hosts."""

from pyscopg2.core.topology.host_state import HostState, Role
from pyscopg2.core.topology.role_query import Answer
from pyscopg2.core.topology.snapshot import Topology

__all__ = ("Answer", "HostState", "Role", "Topology")
