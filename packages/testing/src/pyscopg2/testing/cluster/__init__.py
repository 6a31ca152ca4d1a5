"""A real PostgreSQL cluster on this machine: a primary and its streaming replicas."""

from pyscopg2.testing.cluster.local_cluster import LocalCluster
from pyscopg2.testing.cluster.node import Node, Role
from pyscopg2.testing.cluster.servers import StopMode
from pyscopg2.testing.postgres import ClusterError

__all__ = ["ClusterError", "LocalCluster", "Node", "Role", "StopMode"]
