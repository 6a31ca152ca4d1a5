"""What an environment of `supported` has: the versions in whose name it runs tests."""

import os
import platform

from pyscopg2.testing.cluster import LocalCluster


def test_this_is_the_python_that_is_claimed() -> None:
    assert platform.python_implementation() == "CPython"
    assert platform.python_version().startswith(os.environ["SUPPORTED_PYTHON"] + ".")


def test_this_is_the_postgresql_that_is_claimed() -> None:
    with LocalCluster(replicas=0) as cluster:
        told = cluster.psql(cluster.primary, "SHOW server_version")
    assert told.startswith(os.environ["SUPPORTED_POSTGRESQL"] + ".")
