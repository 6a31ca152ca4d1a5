"""One cluster for all pages: after each failover it is repaired, with the roles exchanged."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.frameworks.failover import repair
from tests.frameworks.page import Page

from pyscopg2.testing.cluster import LocalCluster


@pytest.fixture(scope="session")
def the_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=1) as cluster:
        yield cluster


@pytest.fixture
def cluster(the_cluster: LocalCluster) -> LocalCluster:
    repair(the_cluster)
    return the_cluster


@pytest.fixture
def page(request: pytest.FixtureRequest, cluster: LocalCluster, tmp_path: Path) -> Page:
    """The one that the test is parametrized by; with its schema, if it has one."""
    page = Page(request.param, tmp_path, cluster.dsn)
    if "schema.sql" in page.files:
        cluster.psql(cluster.primary, page.files["schema.sql"])
        cluster.wait_streaming()
    return page
