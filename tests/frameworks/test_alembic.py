"""Migrations by Alembic's own command."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.frameworks.failover import kill_master, promote
from tests.frameworks.page import Page

from pyscopg2.testing.cluster import LocalCluster

pytestmark = pytest.mark.parametrize("page", ["alembic"], indirect=True)


@pytest.fixture(autouse=True)
def without_tables(cluster: LocalCluster) -> None:
    cluster.psql(cluster.primary, "DROP TABLE IF EXISTS tasks, alembic_version")


def test_two_at_once_migrate_once(page: Page, cluster: LocalCluster) -> None:
    with ThreadPoolExecutor() as threads:
        told = list(threads.map(page.run, ["alembic upgrade head"] * 2))
    assert told == ["", ""]
    assert cluster.psql(cluster.primary, "SELECT version_num FROM alembic_version") == "0001"
    assert "0001 (head)" in page.run("alembic current")


def test_a_run_finds_the_new_master(page: Page, cluster: LocalCluster) -> None:
    kill_master(cluster)
    with ThreadPoolExecutor() as threads:
        migrating = threads.submit(page.run, "alembic upgrade head")
        promote(cluster)
        migrating.result()
    assert cluster.psql(cluster.primary, "SELECT version_num FROM alembic_version") == "0001"


def test_it_prints_the_sql_and_asks_no_server(page: Page, cluster: LocalCluster) -> None:
    told = page.run("alembic upgrade head --sql")
    assert re.search(r"CREATE TABLE tasks \(", told)
    assert cluster.psql(cluster.primary, "SELECT to_regclass('tasks') IS NULL") == "t"
