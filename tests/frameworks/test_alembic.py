"""Migrations by Alembic's own command."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.frameworks.failover import kill_master, promote
from tests.frameworks.page import Page
from tests.support.waiting import PATIENCE

from pyscopg2.testing.cluster import ClusterError, LocalCluster

pytestmark = pytest.mark.parametrize("page", ["alembic"], indirect=True)

WRONG = """
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("SELECT 1 / 0")
"""


@pytest.fixture(autouse=True)
def without_tables(cluster: LocalCluster) -> None:
    cluster.psql(cluster.primary, "DROP TABLE IF EXISTS tasks, alembic_version")


def until(cluster: LocalCluster, sql: str, answer: str) -> None:
    end = time.monotonic() + PATIENCE
    while (found := cluster.psql(cluster.primary, sql)) != answer:
        assert time.monotonic() < end, f"{found} instead of {answer}: {sql}"
        time.sleep(0.05)


def test_two_at_once_migrate_once(page: Page, cluster: LocalCluster) -> None:
    locks = "FROM pg_locks WHERE locktype = 'advisory' AND"
    with ThreadPoolExecutor() as threads:
        # Both have to wait for whoever has the lock before they look what is to be done.
        holding = threads.submit(
            cluster.psql, cluster.primary, "SELECT pg_advisory_lock(7267001), pg_sleep(60)"
        )
        try:
            until(cluster, f"SELECT count(*) {locks} granted", "1")
            runs = [threads.submit(page.run, "alembic upgrade head") for _ in range(2)]
            until(cluster, f"SELECT count(*) {locks} NOT granted", "2")
        finally:
            cluster.psql(cluster.primary, f"SELECT pg_terminate_backend(pid) {locks} granted")
            assert isinstance(holding.exception(), ClusterError)
        assert [run.result() for run in runs] == ["", ""]
    assert cluster.psql(cluster.primary, "SELECT version_num FROM alembic_version") == "0001"
    assert "0001 (head)" in page.run("alembic current")


def test_a_run_finds_the_new_master(page: Page, cluster: LocalCluster) -> None:
    kill_master(cluster)
    with ThreadPoolExecutor() as threads:
        migrating = threads.submit(page.run, "alembic upgrade head")
        promote(cluster)
        migrating.result()
    assert cluster.psql(cluster.primary, "SELECT version_num FROM alembic_version") == "0001"


def test_a_migration_that_fails_takes_the_run_back(page: Page, cluster: LocalCluster) -> None:
    (page.folder / "migrations/versions/0002_wrong.py").write_text(WRONG)
    with pytest.raises(AssertionError, match="division by zero"):
        page.run("alembic upgrade head")
    assert cluster.psql(cluster.primary, "SELECT to_regclass('tasks') IS NULL") == "t"


def test_it_prints_the_sql_and_asks_no_server(page: Page, cluster: LocalCluster) -> None:
    told = page.run("alembic upgrade head --sql")
    assert re.search(r"CREATE TABLE tasks \(", told)
    assert cluster.psql(cluster.primary, "SELECT to_regclass('tasks') IS NULL") == "t"
