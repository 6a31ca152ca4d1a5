"""Programs without a server: they wait, and go on after a failover."""

import re

import pytest
from tests.frameworks.failover import kill_master, promote
from tests.frameworks.page import Page

from pyscopg2.testing.cluster import LocalCluster

pytestmark = pytest.mark.parametrize("page", ["workers"], indirect=True)


def put(cluster: LocalCluster, body: str) -> None:
    sql = f"INSERT INTO jobs (body) VALUES ('{body}'); NOTIFY jobs"
    cluster.psql(cluster.primary, sql)


def test_a_worker_listens_again(page: Page, cluster: LocalCluster) -> None:
    with page.running("python worker.py") as worker:
        worker.until(lambda: "listening" in worker.told)
        put(cluster, "the first job")
        worker.until(lambda: "performed the first job" in worker.told)
        kill_master(cluster)
        promote(cluster)
        worker.until(lambda: worker.told.count("listening") == 2)
        put(cluster, "the second job")
        worker.until(lambda: "performed the second job" in worker.told)
    assert cluster.psql(cluster.primary, "SELECT count(*) FROM jobs WHERE done_at IS NULL") == "0"
    assert "Warning" not in worker.told, worker.told


def test_one_leads_and_another_one_follows(page: Page, cluster: LocalCluster) -> None:
    command = "python leader.py"
    with page.running(command) as first, page.running(command, log="other") as second:

        def terms() -> list[int]:
            told = first.told + second.told
            return [int(term) for term in re.findall(r"leading, term (\d+)", told)]

        first.until(lambda: len(terms()) == 1)
        (before,) = terms()
        kill_master(cluster)
        promote(cluster)
        first.until(lambda: len(terms()) == 2)
        assert max(terms()) > before
    assert "ended" in first.told
    assert "ended" in second.told
