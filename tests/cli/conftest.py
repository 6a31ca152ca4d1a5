"""One cluster for all tests, and surroundings of the tests' own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyscopg2.testing.cluster import ClusterError, LocalCluster
from pyscopg2.testing.contracts.healing import heal

from .support import Authority, make_authority


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No DSN, password file or certificate of whoever runs the tests."""
    for name in os.environ:
        if name.startswith("PG") or name == "PYSCOPG2_DSN":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=2) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: LocalCluster) -> LocalCluster:
    """A primary and two replicas, all well. The test leaves its servers as they are."""
    return shared_cluster


@pytest.fixture
def breakable_cluster(shared_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The same cluster, for tests that kill, freeze and promote."""
    try:
        yield shared_cluster
    finally:
        try:
            heal(shared_cluster)
        except ClusterError:
            shared_cluster.close()
            shared_cluster.start()
            raise


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls"))
