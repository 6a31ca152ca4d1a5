"""Requests while a master dies and another one takes over."""

import itertools
import threading
import time

import httpx
from tests.support.waiting import PATIENCE

from pyscopg2.testing.cluster import LocalCluster


def kill_master(cluster: LocalCluster) -> None:
    """When its replica has all that was acknowledged before: a failover may lose the rest."""
    cluster.wait_streaming()
    cluster.kill(cluster.primary)


def promote(cluster: LocalCluster) -> None:
    """The replica is the master now: which node is which changes from test to test."""
    cluster.promote(cluster.replicas[0])


def repair(cluster: LocalCluster) -> None:
    """The master that was killed follows the new one."""
    for node in cluster.nodes:
        if node is not cluster.primary and not node.is_running:
            cluster.rejoin(node)


def answers_through_a_failover(client: httpx.Client, cluster: LocalCluster) -> None:
    """Writes and reads go on, one after the other, until a write succeeds on the new master.

    Each is answered, or told 503 with Retry-After; the new master comes when one was told so.
    """
    client.post("/notes", json={"body": "before"}).raise_for_status()
    promoted, refused = threading.Event(), threading.Event()
    answers: list[httpx.Response] = []

    def ask() -> None:
        for number in itertools.count():
            writing = client.post("/notes", json={"body": f"note {number}"})
            answers.extend((writing, client.get("/notes")))
            if not writing.is_success:
                refused.set()
            elif promoted.is_set():
                return

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    kill_master(cluster)
    assert refused.wait(PATIENCE), "no write was refused while there was no master"
    promote(cluster)
    promoted.set()
    at = time.monotonic()
    asking.join(PATIENCE)
    assert not asking.is_alive(), f"no write {time.monotonic() - at:.1f} s after the failover"
    for answer in answers:
        told = f"{answer.request.method} {answer.status_code} {answer.text}"
        assert answer.is_success or answer.status_code == 503, told
        assert answer.is_success or int(answer.headers["retry-after"]) > 0, told
    assert "before" in client.get("/notes").json()
