"""`pyscopg2 status`: one look, as a table and as JSON."""

import json

from tests.cli.support import run

from pyscopg2.cli.exit_code import ExitCode
from pyscopg2.testing.cluster import LocalCluster


def test_a_cluster_that_is_well(cluster: LocalCluster) -> None:
    done = run("status", "--json", cluster.dsn)
    told = json.loads(done.stdout)
    assert done.exit_code == ExitCode.FINE
    assert told["master"] == cluster.primary.address
    hosts = {host["address"]: host for host in told["hosts"]}
    assert list(hosts) == [node.address for node in cluster.nodes]
    assert all(host["serving"] for host in hosts.values())
    assert hosts[cluster.primary.address]["timeline"] >= 1
    numbers = told["stats"]["hosts"]
    assert [host["role"] for host in numbers] == [host["role"] for host in hosts.values()]
    assert all(host["checks"] >= 1 for host in numbers)


def test_people_are_told_the_same(cluster: LocalCluster) -> None:
    done = run("status", cluster.dsn)
    assert done.exit_code == ExitCode.FINE
    lines = done.stdout.splitlines()
    for node in cluster.nodes:
        (line,) = (each for each in lines if each.startswith(node.address))
        role = "master" if node is cluster.primary else "replica"
        assert line.split()[1:3] == [role, "yes"]
    assert any(f"master: {cluster.primary.address}" in line for line in lines)


def test_without_a_master(cluster: LocalCluster) -> None:
    done = run("status", "--json", cluster.replicas[0].dsn)
    assert done.exit_code == ExitCode.BROKEN
    assert json.loads(done.stdout)["master"] is None


def test_a_host_that_is_frozen(breakable_cluster: LocalCluster) -> None:
    replica = breakable_cluster.replicas[0]
    breakable_cluster.freeze(replica)
    done = run("status", "--json", breakable_cluster.dsn)
    assert done.exit_code == ExitCode.FINE
    hosts = {host["address"]: host for host in json.loads(done.stdout)["hosts"]}
    assert hosts[replica.address]["role"] == "unavailable"
    assert "TimeoutError" in hosts[replica.address]["reason"]
