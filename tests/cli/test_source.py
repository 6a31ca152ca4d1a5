"""Where a DSN comes from, and what is said of one that can't be used."""

import json
from pathlib import Path

import pytest
from tests.cli.support import run

from pyscopg2.cli.exit_code import ExitCode
from pyscopg2.testing.cluster import LocalCluster


def hosts(env: dict[str, str], *arguments: str) -> list[str]:
    done = run("status", "--json", *arguments, env=env)
    assert done.exit_code == ExitCode.FINE, done.output
    return [host["address"] for host in json.loads(done.stdout)["hosts"]]


def test_from_the_argument_first(cluster: LocalCluster) -> None:
    assert hosts({"PYSCOPG2_DSN": "postgresql://nowhere.invalid"}, cluster.primary.dsn) == [
        cluster.primary.address
    ]


def test_from_a_variable_of_its_own(cluster: LocalCluster) -> None:
    primary = cluster.primary
    text = f"host={primary.host} port={primary.port} user=postgres password={cluster.password}"
    assert hosts({"PYSCOPG2_DSN": text, "PGHOST": "nowhere.invalid"}) == [primary.address]


def test_from_where_libpq_takes_it(cluster: LocalCluster) -> None:
    nodes = cluster.nodes
    env = {
        "PGHOST": ",".join(node.host for node in nodes),
        "PGPORT": ",".join(str(node.port) for node in nodes),
        "PGUSER": "postgres",
        "PGPASSWORD": cluster.password,
    }
    assert hosts(env) == [node.address for node in nodes]


def test_from_a_service_file_and_a_password_file(cluster: LocalCluster, tmp_path: Path) -> None:
    primary = cluster.primary
    service, passwords = tmp_path / "services", tmp_path / "passwords"
    service.write_text(f"[mine]\nhost={primary.host}\nport={primary.port}\nuser=postgres\n")
    passwords.write_text(f"*:*:*:*:{cluster.password}\n")
    passwords.chmod(0o600)
    env = {"PGSERVICEFILE": str(service), "PGPASSFILE": str(passwords)}
    assert hosts(env | {"PGSERVICE": "mine"}) == [primary.address]
    assert hosts(env, "service=mine") == [primary.address]


@pytest.mark.parametrize("command", ["check", "status", "watch"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["postgresql://u:p@h:port/d"],
        ["postgresql://u:p@h/d?channel_binding=require"],
        ["postgresql://u:p@h/d?sslrootcert=system&sslcert=/nowhere/client.crt"],
        ["service=nowhere"],
        ["host=h", "user=u"],
        ["--nonsense"],
    ],
    ids=["malformed", "not asyncpg's", "no file", "no service", "two", "option"],
)
def test_what_cannot_be_used(command: str, arguments: list[str]) -> None:
    done = run(command, *arguments)
    assert done.exit_code == ExitCode.USAGE
    assert done.stdout == ""
    assert "Error: " in done.stderr
    assert "Traceback" not in done.output
