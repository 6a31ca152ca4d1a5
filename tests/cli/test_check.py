"""`pyscopg2 check` names the cause: each of those that people meet, on real servers."""

import asyncio
import socket
import struct
from contextlib import ExitStack

import pytest
from tests.cli.stand_in_pooler import StandInPooler
from tests.cli.support import (
    SSL_REQUEST,
    Authority,
    as_user,
    check,
    check_beside,
    run,
    serving,
    tls_front,
)

from pyscopg2.cli.check.finding import Kind
from pyscopg2.cli.exit_code import ExitCode
from pyscopg2.testing.cluster import LocalCluster
from pyscopg2.testing.fault_proxy import FaultProxy


def test_a_cluster_that_is_well(cluster: LocalCluster) -> None:
    checked = check(cluster.dsn)
    assert checked.exit_code == ExitCode.FINE
    assert checked.kinds == set()
    hosts = checked.report["hosts"]
    assert [host["role"] for host in hosts] == ["master", "replica", "replica"]
    assert {host["timeline"] for host in hosts} == {1}
    assert [host["resolves_to"] for host in hosts] == [["127.0.0.1"]] * 3
    for host in hosts:
        assert 0 < host["connect_time"] < host["login_time"]
        assert host["pooler"] == "none"
        assert host["offers_tls"] is False
    assert hosts[0]["bytes_behind"] is None
    assert all(host["bytes_behind"] is not None for host in hosts[1:])


# Who answers there


def test_a_host_that_is_down(breakable_cluster: LocalCluster) -> None:
    replica = breakable_cluster.replicas[0]
    breakable_cluster.kill(replica)
    checked = check(breakable_cluster.dsn)
    assert checked.kinds == {(Kind.REFUSED.label, replica.address)}
    assert checked.exit_code == ExitCode.BROKEN


def test_a_host_that_is_frozen(breakable_cluster: LocalCluster) -> None:
    master = breakable_cluster.primary
    breakable_cluster.freeze(master)
    checked = check(breakable_cluster.dsn)
    assert checked.kinds == {(Kind.FROZEN.label, master.address), (Kind.NO_MASTER.label, None)}


def test_a_host_that_answers_nothing() -> None:
    """As one behind a firewall: the kernel lets connections wait that nobody accepts, but few."""
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        checked = check(f"postgresql://u:p@127.0.0.1:{port}/d")
    assert checked.kinds == {(Kind.UNREACHABLE.label, f"127.0.0.1:{port}")}


def test_a_name_that_nobody_knows(cluster: LocalCluster) -> None:
    checked = check(f"postgresql://u:p@nowhere.invalid:5432,{cluster.primary.address}/d")
    assert (Kind.NAME_UNKNOWN.label, "nowhere.invalid:5432") in checked.kinds


def test_a_name_whose_answer_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = socket.create_connection(silent.getsockname())

        def wait(*_: object, **__: object) -> list[object]:
            connection.recv(1)
            return []

        monkeypatch.setattr(socket, "getaddrinfo", wait)
        checked = check("postgresql://u:p@slow.invalid:5432/d")
        # The threads that wait end with the test.
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
    assert checked.kinds == {(Kind.NAME_UNANSWERED.label, "slow.invalid:5432")}


def test_a_socket_that_is_not_there() -> None:
    checked = check("host=/nowhere/at/all user=u dbname=d")
    assert checked.kinds == {(Kind.REFUSED.label, "/nowhere/at/all:5432")}


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail.example ESMTP\r\n"])
async def test_the_port_of_something_that_speaks_first(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()

    async with serving(serve) as port:
        checked = await check_beside(f"postgresql://u:p@127.0.0.1:{port}/d")
    assert checked.kinds == {(Kind.OTHER_SERVICE.label, f"127.0.0.1:{port}")}
    assert repr(said)[2:10] in checked.text(Kind.OTHER_SERVICE)


async def test_the_port_of_something_that_waits_for_a_line() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with serving(serve) as port:
        checked = await check_beside(f"postgresql://u:p@127.0.0.1:{port}/d")
    assert checked.kinds == {(Kind.OTHER_SERVICE.label, f"127.0.0.1:{port}")}


async def test_a_balancer_with_no_server_behind_it(breakable_cluster: LocalCluster) -> None:
    replica = breakable_cluster.replicas[0]
    breakable_cluster.kill(replica)
    async with FaultProxy(replica) as proxy:
        checked = await check_beside(f"postgresql://u:p@{proxy.address}/d")
    assert checked.kinds == {(Kind.CLOSED.label, proxy.address)}


# TLS


def test_tls_that_the_server_does_not_have(cluster: LocalCluster) -> None:
    checked = check(f"{cluster.primary.dsn}?sslmode=require")
    assert checked.kinds == {(Kind.TLS_REFUSED.label, cluster.primary.address)}


async def test_a_certificate_of_an_authority_that_is_not_trusted(
    cluster: LocalCluster, authority: Authority
) -> None:
    async with serving(tls_front(cluster, authority)) as port:
        rest = f"localhost:{port}/postgres?sslmode=verify-full&sslrootcert="
        dsn = f"postgresql://postgres:{cluster.password}@{rest}"
        wrong = await check_beside(f"{dsn}{authority.stranger}")
        right = await check_beside(f"{dsn}{authority.ca}")
    assert wrong.kinds == {(Kind.CERTIFICATE.label, f"localhost:{port}")}
    assert right.kinds == set()
    assert right.report["hosts"][0]["offers_tls"] is True


async def test_a_certificate_for_another_name(cluster: LocalCluster, authority: Authority) -> None:
    async with serving(tls_front(cluster, authority)) as port:
        rest = f"127.0.0.1:{port}/postgres?sslmode=verify-full&sslrootcert={authority.ca}"
        checked = await check_beside(f"postgresql://postgres:{cluster.password}@{rest}")
    assert checked.kinds == {(Kind.CERTIFICATE.label, f"127.0.0.1:{port}")}
    assert "127.0.0.1" in checked.text(Kind.CERTIFICATE)


async def test_a_server_that_agrees_on_no_tls() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"S")
        await reader.read(1)
        writer.write(b"no TLS at all")
        await reader.read()

    async with serving(serve) as port:
        checked = await check_beside(f"postgresql://u:p@127.0.0.1:{port}/d?sslmode=require")
    assert checked.kinds == {(Kind.TLS_FAILED.label, f"127.0.0.1:{port}")}


# The login


def test_a_wrong_password(cluster: LocalCluster) -> None:
    checked = check(as_user(cluster, "postgres:wrong"))
    assert checked.kinds == {(Kind.PASSWORD.label, node.address) for node in cluster.nodes}
    assert "no password in" not in checked.report["findings"][0]["text"]


def test_no_password(cluster: LocalCluster) -> None:
    primary = cluster.primary
    checked = check(f"postgresql://postgres@{primary.address}/postgres")
    assert checked.kinds == {(Kind.PASSWORD.label, primary.address)}
    assert "there is no password in the DSN" in checked.text(Kind.PASSWORD)


def test_an_unknown_database(cluster: LocalCluster) -> None:
    account = f"postgres:{cluster.password}"
    checked = check(as_user(cluster, account, dbname="nowhere"))
    assert checked.kinds == {(Kind.DATABASE_UNKNOWN.label, node.address) for node in cluster.nodes}


def test_a_role_without_login_or_without_the_database(cluster: LocalCluster) -> None:
    primary = cluster.primary
    cluster.psql(
        primary,
        "CREATE ROLE shut PASSWORD 'p'; CREATE ROLE barred LOGIN PASSWORD 'p';"
        "CREATE DATABASE closed; REVOKE CONNECT ON DATABASE closed FROM public",
    )
    try:
        shut = check(f"postgresql://shut:p@{primary.address}/postgres")
        barred = check(f"postgresql://barred:p@{primary.address}/closed")
    finally:
        cluster.psql(primary, "DROP DATABASE closed")
        cluster.psql(primary, "DROP ROLE shut; DROP ROLE barred")
    assert shut.kinds == {(Kind.LOGIN_REFUSED.label, primary.address)}
    assert barred.kinds == {(Kind.DATABASE_REFUSED.label, primary.address)}


def test_a_server_that_has_no_connection_left(cluster: LocalCluster) -> None:
    primary = cluster.primary
    cluster.psql(primary, "CREATE ROLE many LOGIN PASSWORD 'p' CONNECTION LIMIT 0")
    try:
        checked = check(f"postgresql://many:p@{primary.address}/postgres")
    finally:
        cluster.psql(primary, "DROP ROLE many")
    assert checked.kinds == {(Kind.FULL.label, primary.address)}


@pytest.mark.parametrize(
    "params", ["sslmode=verify-ca&sslrootcert=/nowhere/root.crt", "no_such_setting=1"]
)
async def test_a_parameter_that_cannot_be_used(
    cluster: LocalCluster, authority: Authority, params: str
) -> None:
    async with serving(tls_front(cluster, authority)) as port:
        dsn = f"postgresql://postgres:{cluster.password}@localhost:{port}/postgres?{params}"
        checked = await check_beside(dsn)
    assert checked.kinds == {(Kind.PARAMETER.label, f"localhost:{port}")}


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("57P03", "the database system is starting up", Kind.NOT_READY),
        ("28000", 'no pg_hba.conf entry for host "::1", no encryption', Kind.TLS_DEMANDED),
        ("28000", 'no pg_hba.conf entry for host "::1", SSL off', Kind.TLS_DEMANDED),
        ("28000", "connection requires a valid client certificate", Kind.CLIENT_CERTIFICATE),
        ("28000", 'no pg_hba.conf entry for host "::1"', Kind.LOGIN_REFUSED),
        ("08P01", "SSL required", Kind.TLS_DEMANDED),
        ("08P01", "no such database: d", Kind.DATABASE_UNKNOWN),
        ("08P01", "no such user: u", Kind.PASSWORD),
        ("08P01", "SASL authentication failed", Kind.PASSWORD),
        ("08P01", "no more connections allowed (max_client_conn)", Kind.FULL),
        ("08P01", "unsupported startup parameter: options", Kind.PARAMETER),
        ("XX000", "something that nobody knows", Kind.LOGIN_FAILED),
    ],
)
async def test_what_a_server_refuses_a_login_with(code: str, message: str, kind: Kind) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(8)
        if first == SSL_REQUEST:
            writer.write(b"N")
            first = await reader.readexactly(8)
        body = f"SFATAL\0C{code}\0M{message}\0\0".encode()
        writer.write(b"E" + struct.pack("!i", 4 + len(body)) + body)
        await writer.drain()

    async with serving(serve) as port:
        checked = await check_beside(f"postgresql://u:p@127.0.0.1:{port}/d")
    assert checked.kinds == {(kind.label, f"127.0.0.1:{port}")}
    assert message in checked.text(kind)


async def test_a_login_that_does_not_end() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"N")
        await reader.read()
        await asyncio.Event().wait()

    async with serving(serve) as port:
        checked = await check_beside(f"postgresql://u:p@127.0.0.1:{port}/d")
    assert checked.kinds == {(Kind.LOGIN_UNANSWERED.label, f"127.0.0.1:{port}")}


async def test_a_login_that_is_cut_off() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"N")
        await reader.read(1)

    async with serving(serve) as port:
        checked = await check_beside(f"postgresql://u:p@127.0.0.1:{port}/d")
    assert checked.kinds == {(Kind.LOGIN_FAILED.label, f"127.0.0.1:{port}")}


# What the login may, and what stands between


def test_a_login_without_pg_monitor(cluster: LocalCluster) -> None:
    primary = cluster.primary
    cluster.psql(primary, "CREATE ROLE plain LOGIN PASSWORD 'p'")
    cluster.wait_streaming()
    try:
        without = check(as_user(cluster, "plain:p"))
        cluster.psql(primary, "GRANT pg_monitor TO plain")
        cluster.wait_streaming()
        with_it = check(as_user(cluster, "plain:p"))
    finally:
        cluster.psql(primary, "DROP ROLE plain")
    assert without.kinds == {(Kind.NO_PG_MONITOR.label, node.address) for node in cluster.nodes}
    assert without.exit_code == ExitCode.FINE
    assert with_it.kinds == set()


def test_a_server_that_refuses_functions_of_its_log(cluster: LocalCluster) -> None:
    primary = cluster.primary
    cluster.psql(
        primary,
        "CREATE ROLE poor LOGIN PASSWORD 'p' IN ROLE pg_monitor;"
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public",
    )
    try:
        checked = check(f"postgresql://poor:p@{primary.address}/postgres")
    finally:
        cluster.psql(
            primary,
            "GRANT EXECUTE ON FUNCTION pg_control_system() TO public; DROP ROLE poor",
        )
    assert checked.kinds == {(Kind.NO_TIMELINE.label, primary.address)}
    assert checked.exit_code == ExitCode.WARNED


@pytest.mark.parametrize("by_transaction", [True, False])
async def test_a_pooler_between(cluster: LocalCluster, by_transaction: bool) -> None:
    pooler = StandInPooler(cluster.primary, by_transaction=by_transaction)
    async with pooler.serving():
        rest = f"127.0.0.1:{pooler.port}/postgres"
        checked = await check_beside(f"postgresql://postgres:{cluster.password}@{rest}")
    kind = Kind.POOLER_TRANSACTION if by_transaction else Kind.POOLER
    assert checked.kinds == {(kind.label, f"127.0.0.1:{pooler.port}")}
    assert checked.report["hosts"][0]["role"] == "master"
    assert checked.exit_code == (ExitCode.WARNED if by_transaction else ExitCode.FINE)


# What the servers are like


def test_a_role_that_is_read_only(cluster: LocalCluster) -> None:
    primary = cluster.primary
    cluster.psql(
        primary,
        "CREATE ROLE reader LOGIN PASSWORD 'p' IN ROLE pg_monitor;"
        "ALTER ROLE reader SET default_transaction_read_only = on",
    )
    cluster.wait_streaming()
    try:
        checked = check(as_user(cluster, "reader:p"))
    finally:
        cluster.psql(primary, "DROP ROLE reader")
    assert checked.kinds == {(Kind.READ_ONLY_LOGIN.label, primary.address)}
    assert checked.text(Kind.READ_ONLY_LOGIN).endswith("set by: user")
    assert checked.exit_code == ExitCode.WARNED


def test_a_primary_that_is_read_only(breakable_cluster: LocalCluster) -> None:
    primary = breakable_cluster.primary
    breakable_cluster.psql(
        primary, "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()"
    )
    checked = check(breakable_cluster.dsn)
    assert checked.kinds == {
        (Kind.READ_ONLY_SERVER.label, primary.address),
        (Kind.NO_MASTER.label, None),
    }


def test_a_standby_that_was_paused_and_one_that_receives_nothing(
    breakable_cluster: LocalCluster,
) -> None:
    paused, cut = breakable_cluster.replicas
    breakable_cluster.psql(paused, "SELECT pg_wal_replay_pause()")
    breakable_cluster.psql(cut, "ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf()")
    wait = (
        "DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_get_wal_receiver() WHERE pid IS NOT NULL)"
        " LOOP PERFORM pg_sleep(0.01); END LOOP; END $$"
    )
    breakable_cluster.psql(cut, wait)
    checked = check(breakable_cluster.dsn)
    breakable_cluster.psql(paused, "SELECT pg_wal_replay_resume()")
    breakable_cluster.psql(cut, "ALTER SYSTEM RESET ALL; SELECT pg_reload_conf()")
    assert checked.kinds == {
        (Kind.REPLAY_PAUSED.label, paused.address),
        (Kind.RECEIVES_NOTHING.label, cut.address),
    }


# All together


def test_a_standby_only(cluster: LocalCluster) -> None:
    checked = check(cluster.replicas[0].dsn)
    assert checked.kinds == {(Kind.ONLY_STANDBYS.label, None)}
    assert checked.text(Kind.ONLY_STANDBYS) == "the host is a standby"
    assert checked.exit_code == ExitCode.BROKEN


def test_a_superseded_master(breakable_cluster: LocalCluster) -> None:
    old = breakable_cluster.primary
    new = breakable_cluster.replicas[0]
    breakable_cluster.promote(new)
    checked = check(breakable_cluster.dsn)
    assert checked.kinds == {(Kind.SUPERSEDED.label, old.address)}
    assert new.address in checked.text(Kind.SUPERSEDED)
    roles = {host["address"]: host["role"] for host in checked.report["hosts"]}
    assert roles[new.address] == "master"
    assert roles[old.address] == "superseded"


def test_two_masters(breakable_cluster: LocalCluster) -> None:
    old = breakable_cluster.primary
    first, second = breakable_cluster.replicas
    breakable_cluster.kill(old)
    breakable_cluster.promote(first, follow=False)
    breakable_cluster.promote(second, follow=False)
    checked = check(breakable_cluster.dsn)
    found = {kind for kind, _ in checked.kinds}
    assert found == {Kind.TWO_MASTERS.label, Kind.REFUSED.label, Kind.NO_REPLICA.label}


def test_a_server_of_another_cluster(cluster: LocalCluster) -> None:
    with LocalCluster(replicas=0) as other:
        for each in (cluster, other):
            each.psql(each.primary, "CREATE ROLE anyone LOGIN PASSWORD 'p' IN ROLE pg_monitor")
        cluster.wait_streaming()
        try:
            nodes = (other.primary, *cluster.nodes)
            hosts = ",".join(node.address for node in nodes)
            checked = check(f"postgresql://anyone:p@{hosts}/postgres")
        finally:
            cluster.psql(cluster.primary, "DROP ROLE anyone")
        assert checked.kinds == {(Kind.OTHER_CLUSTER.label, other.primary.address)}


def test_one_server_by_two_addresses(cluster: LocalCluster) -> None:
    port = cluster.primary.port
    dsn = f"postgresql://postgres:{cluster.password}@127.0.0.1:{port},localhost:{port}/postgres"
    checked = check(dsn)
    assert {kind for kind, _ in checked.kinds} == {
        Kind.ONE_SERVER_TWICE.label,
        Kind.NO_REPLICA.label,
    }


def test_what_is_ignored(cluster: LocalCluster) -> None:
    checked = check(f"{cluster.dsn}?target_session_attrs=read-write")
    assert checked.kinds == {(Kind.IGNORED.label, None)}
    assert checked.exit_code == ExitCode.FINE


def test_people_are_told_the_same(breakable_cluster: LocalCluster) -> None:
    replica = breakable_cluster.replicas[0]
    breakable_cluster.kill(replica)
    done = run("check", breakable_cluster.dsn, width=160)
    assert done.exit_code == ExitCode.BROKEN
    # How wide a column is, is a matter of rich's version.
    told = " ".join(done.stdout.split())
    assert f"FAULT {replica.address}: the connection was not accepted" in told
    assert f"[{Kind.REFUSED.label}]" in done.stdout
    assert Kind.REFUSED.remedy in done.stdout
    assert "1 fault, 0 warnings, 0 notes" in done.stdout


async def test_a_cluster_that_is_far_away(cluster: LocalCluster) -> None:
    """What takes its time is no fault."""
    async with FaultProxy(cluster.primary, delay=0.1) as proxy:
        rest = f"{proxy.address}/postgres"
        checked = await check_beside(f"postgresql://postgres:{cluster.password}@{rest}")
    assert checked.kinds <= {(Kind.OUT_OF_TIME.label, proxy.address)}
    assert checked.exit_code in (ExitCode.FINE, ExitCode.WARNED)


async def test_a_server_that_does_not_answer_after_the_login(cluster: LocalCluster) -> None:
    """The manager's word counts: its check fails, too."""
    async with FaultProxy(cluster.primary, delay=0.3) as proxy:
        rest = f"{proxy.address}/postgres"
        checked = await check_beside(f"postgresql://postgres:{cluster.password}@{rest}")
    found = {kind for kind, _ in checked.kinds}
    assert found & {Kind.CHECK_FAILED.label, Kind.LOGIN_UNANSWERED.label}
    assert checked.exit_code == ExitCode.BROKEN
