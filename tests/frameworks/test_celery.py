"""A worker that forks, with a broker of files instead of Redis."""

import pytest
from tests.frameworks.failover import kill_master, promote
from tests.frameworks.page import Page

from pyscopg2.testing.cluster import LocalCluster

BROKER = """
broker_url = "filesystem://"
broker_transport_options = {"data_folder_in": ".", "data_folder_out": "."}
"""


@pytest.mark.parametrize("page", ["celery"], indirect=True)
def test_tasks_go_on_after_a_failover(page: Page, cluster: LocalCluster) -> None:
    (page.folder / "celeryconfig.py").write_text(BROKER)
    call = "celery --app tasks call tasks.add_note --args '[\"hello\"]'"
    cluster.psql(cluster.primary, "TRUNCATE notes")

    def count() -> int:
        return int(cluster.psql(cluster.primary, "SELECT count(*) FROM notes"))

    with page.running("celery --app tasks worker --concurrency 2") as worker:
        page.run(call)
        worker.until(lambda: count() == 1)
        kill_master(cluster)
        page.run(call)
        promote(cluster)
        worker.until(lambda: count() == 2)
    assert "raised" not in worker.told, worker.told
