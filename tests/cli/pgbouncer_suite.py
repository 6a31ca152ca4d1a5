"""`pyscopg2 check` through a real PgBouncer: `hatch run pgbouncer`, a job of its own.

The program ``pgbouncer`` is looked for on the PATH and in /usr/sbin, where Debian's package has it.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.support import check

from pyscopg2.cli.check.finding import Kind
from pyscopg2.cli.exit_code import ExitCode
from pyscopg2.testing.cluster import LocalCluster, Node

PATIENCE = 30.0
"""Seconds after which it is taken for one that does not start."""


def program() -> str:
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None, "no pgbouncer: apt-get install pgbouncer"
    return found


@contextmanager
def pgbouncer(node: Node, mode: str, password: str) -> Generator[str]:
    """Its DSN, while it serves."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings, users = Path(folder) / "pgbouncer.ini", Path(folder) / "users"
        users.write_text(f'"postgres" "{password}"\n')
        settings.write_text(
            f"[databases]\npostgres = host={node.host} port={node.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\npool_mode = {mode}\n"
        )
        for path in (Path(folder), settings, users):
            path.chmod(0o755)
        # It refuses to run as root.
        user = "nobody" if os.geteuid() == 0 else None
        command = [program(), str(settings)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, user=user)
        try:
            _wait_until_it_listens(port, process)
            yield f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
        finally:
            process.kill()
            process.wait()


def _wait_until_it_listens(port: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert process.poll() is None, "pgbouncer does not start"
            assert time.monotonic() < until
            time.sleep(0.02)
        else:
            return


def address(dsn: str) -> str:
    return dsn.partition("@")[2].partition("/")[0]


def test_its_mode(cluster: LocalCluster) -> None:
    for mode, kind in (("session", Kind.POOLER), ("transaction", Kind.POOLER_TRANSACTION)):
        with pgbouncer(cluster.primary, mode, cluster.password) as dsn:
            # Again, with servers that are open already.
            for _ in range(2):
                assert check(dsn).kinds == {(kind.label, address(dsn))}


def test_what_it_refuses(cluster: LocalCluster) -> None:
    with pgbouncer(cluster.primary, "transaction", cluster.password) as dsn:
        where = address(dsn)
        unknown = dsn.replace("/postgres", "/nowhere").replace("//nowhere", "//postgres")
        assert check(unknown).kinds == {(Kind.DATABASE_UNKNOWN.label, where)}
        wrong = dsn.replace(cluster.password, "wrong")
        assert check(wrong).kinds == {(Kind.PASSWORD.label, where)}
        nobody = dsn.replace("//postgres:", "//nobody:")
        assert check(nobody).kinds == {(Kind.PASSWORD.label, where)}
        assert check(f"{dsn}?options=-cgeqo%3Doff").kinds == {(Kind.PARAMETER.label, where)}


def test_one_whose_server_is_down(breakable_cluster: LocalCluster) -> None:
    with pgbouncer(breakable_cluster.primary, "transaction", breakable_cluster.password) as dsn:
        assert {kind for kind, _ in check(dsn).kinds} == {Kind.POOLER_TRANSACTION.label}
        breakable_cluster.kill(breakable_cluster.primary)
        # It says so once it has tried, and holds clients that long.
        until = time.monotonic() + PATIENCE
        while (Kind.POOLER_ALONE.label, address(dsn)) not in (checked := check(dsn)).kinds:
            assert checked.exit_code == ExitCode.BROKEN
            assert time.monotonic() < until, checked
