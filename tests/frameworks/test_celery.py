"""Tasks of Celery, in processes that fork, through a failover."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.frameworks.failover import kill_master, promote
from tests.frameworks.page import Page

from pyscopg2.testing.cluster import LocalCluster

pytestmark = pytest.mark.parametrize("page", ["celery"], indirect=True)


def test_tasks_are_done_through_a_failover(page: Page, cluster: LocalCluster) -> None:
    cluster.psql(cluster.primary, "TRUNCATE done_jobs")
    worker = "celery -A tasks worker --concurrency 2 --loglevel INFO"
    with page.running(worker) as running, ThreadPoolExecutor() as threads:
        running.until(lambda: " ready." in running.told)
        assert "20 jobs are done" in page.run("python client.py first")
        kill_master(cluster)
        second = threads.submit(page.run, "python client.py second")
        running.until(lambda: running.told.count("tasks.do") > 2 * 20)
        promote(cluster)
        assert "40 jobs are done" in second.result()
    assert cluster.psql(cluster.primary, "SELECT count(*) FROM done_jobs") == "40"
