"""What real use broke: services with several servers behind them, logins and their settings,
masters that are replaced, foreign, or come late."""

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import AsyncGenerator, AsyncIterator

import asyncpg
import pytest
from tests.support.waiting import eventually

from pyscopg2.asyncpg import PoolManager
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.topology import Role
from pyscopg2.testing.cluster import LocalCluster, Node
from pyscopg2.testing.fault_proxy import Addressed, FaultProxy

from .support import (
    BROKEN,
    WRITES,
    MakeManager,
    as_application,
    connected,
    fetchval,
    reader,
    role_becomes,
    server_of,
    write,
    writer,
    writes_on,
)

SECRET = "secret"


class Either:
    """Several servers, one after another."""

    def __init__(self, *servers: Addressed) -> None:
        self._turns = itertools.cycle(servers)
        self._now = next(self._turns)

    @property
    def host(self) -> str:
        self._now = next(self._turns)
        return self._now.host

    @property
    def port(self) -> int:
        return self._now.port


def dsn_of(cluster: LocalCluster, *servers: Addressed, login: str | None = None) -> str:
    hosts = ",".join(f"{server.host}:{server.port}" for server in servers)
    who = login or f"{cluster.user}:{cluster.password}"
    return as_application(f"postgresql://{who}@{hosts}/{cluster.database}")


# Services


@pytest.mark.parametrize("promoted", [0, 1])
async def test_services_lead_elsewhere_after_a_promotion(
    breakable_cluster: LocalCluster, make_manager: MakeManager, promoted: int
) -> None:
    """As Kubernetes' ``-rw`` and ``-ro``: 2 s after the promotion all writes succeed, and reads
    are served by the standby alone."""
    cluster = breakable_cluster
    old, replicas = cluster.primary, cluster.replicas
    new, other = replicas[promoted], replicas[1 - promoted]
    async with FaultProxy(old) as rw, FaultProxy(Either(*replicas)) as ro:
        manager = make_manager(
            dsn_of(cluster, rw, ro),
            acquire_timeout=1.0,
            pool_factory_kwargs={"min_size": 4, "max_size": 4},
        )
        await manager.ready(1, 1)
        held = [await manager.acquire_replica() for _ in range(4)]
        assert {await server_of(connection) for connection in held} == {r.name for r in replicas}
        for connection in held:
            await manager.release(connection)
        await asyncio.to_thread(cluster.kill, old)
        await asyncio.to_thread(cluster.promote, new)
        at = time.monotonic()
        await asyncio.sleep(0.3)
        rw.move_to(new)
        ro.move_to(other)
        while time.monotonic() < at + 2:
            for use in (writer, reader):
                with contextlib.suppress(AcquireTimeoutError, *BROKEN):
                    await use(manager)
            await asyncio.sleep(0.01)
        for _ in range(60):
            assert await writer(manager) == new.name
            assert await reader(manager) == other.name
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("rtt", [0.06, 0.1, 0.15, 0.235])
async def test_a_host_far_away(
    breakable_cluster: LocalCluster, make_manager: MakeManager, rtt: float
) -> None:
    cluster = breakable_cluster
    node = cluster.primary
    async with FaultProxy(node, delay=rtt / 2) as far:
        manager = make_manager(
            dsn_of(cluster, far), pool_factory_kwargs={"min_size": 10, "max_size": 10}
        )
        await manager.ready(timeout=30)
        await writer(manager)
        await asyncio.to_thread(cluster.freeze, node)
        at = time.monotonic()
        await eventually(lambda: not manager.master_pool_count, "a frozen host is out")
        # A check is due within 1.2 s, and unanswered for 1 s.
        assert time.monotonic() - at < 6
        await asyncio.to_thread(cluster.thaw, node)
        await eventually(lambda: manager.master_pool_count, "it is back")


# Logins and their settings


@pytest.fixture
async def app(breakable_cluster: LocalCluster) -> AsyncIterator[str]:
    """A login without privileges, but for the table of writes: ``name:password``."""
    cluster = breakable_cluster
    async with connected(cluster.primary) as connection:
        await connection.execute(f"CREATE ROLE app LOGIN PASSWORD '{SECRET}'")
        await connection.execute("GRANT ALL ON writes TO app")
    await asyncio.to_thread(cluster.wait_streaming)
    yield f"app:{SECRET}"
    async with connected(cluster.primary) as connection:
        await connection.execute("DROP OWNED BY app; DROP ROLE app")


async def alter(cluster: LocalCluster, setting: str) -> None:
    async with connected(cluster.primary) as connection:
        await connection.execute(f"ALTER ROLE app SET {setting}")
    await asyncio.to_thread(cluster.wait_streaming)


SETTINGS = {
    "default_transaction_isolation": "serializable",
    "statement_timeout": "'2s'",
    "search_path": "evil, pg_catalog, public",
    "client_encoding": "sql_ascii",
    "datestyle": "german",
    "extra_float_digits": "-15",
    "idle_in_transaction_session_timeout": "100",
    "default_transaction_deferrable": "on",
}

EVIL = """\
CREATE SCHEMA evil;
GRANT USAGE ON SCHEMA evil TO public;
CREATE FUNCTION evil.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION evil.pg_last_wal_replay_lsn() RETURNS pg_lsn LANGUAGE sql AS 'SELECT NULL::pg_lsn';
CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS $$SELECT 'on'$$;
"""


@pytest.mark.parametrize("setting", SETTINGS)
async def test_a_logins_settings_change_nothing_of_what_a_check_says(
    app: str, breakable_cluster: LocalCluster, make_manager: MakeManager, setting: str
) -> None:
    cluster = breakable_cluster
    plain = make_manager(dsn_of(cluster, *cluster.nodes, login=app))
    await plain.ready()
    with contextlib.suppress(asyncpg.PostgresError):
        async with connected(cluster.primary) as connection:
            await connection.execute(EVIL)
    try:
        await alter(cluster, f"{setting} = {SETTINGS[setting]}")
        manager = make_manager(dsn_of(cluster, *cluster.nodes, login=app))
        await manager.ready()
        for host in manager.topology:
            before, answer = plain.topology[host.address].answer, host.answer
            assert before is not None
            assert answer is not None
            assert answer.rich
            assert (answer.in_recovery, answer.timeline, answer.system_identifier) == (
                before.in_recovery,
                before.timeline,
                before.system_identifier,
            )
        assert await name_of_master(manager) == cluster.primary.name
    finally:
        async with connected(cluster.primary) as connection:
            await connection.execute("DROP SCHEMA IF EXISTS evil CASCADE")


async def test_a_standby_that_refuses_serializable_is_fenced_all_the_same(
    app: str, breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    cluster = breakable_cluster
    await alter(cluster, "default_transaction_isolation = serializable")
    old, new = cluster.primary, cluster.replicas[0]
    manager = make_manager(dsn_of(cluster, *cluster.nodes, login=app))
    await manager.ready()
    await asyncio.to_thread(cluster.promote, new, follow=False)
    await role_becomes(manager, old, Role.SUPERSEDED)
    before = await writes_on(old)
    for _ in range(80):
        assert await writer(manager) == new.name
    assert await writes_on(old) == before


async def test_a_login_that_is_read_only_makes_no_replica_of_the_primary(
    app: str, breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    cluster = breakable_cluster
    await alter(cluster, "default_transaction_read_only = on")
    manager = make_manager(dsn_of(cluster, *cluster.nodes, login=app))
    await manager.ready(1, 2)
    assert "read-only" in str(manager.topology[cluster.primary.address])
    async with manager.acquire_master() as connection:
        assert await server_of(connection) == cluster.primary.name
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await write(connection)
        async with connection.transaction(readonly=False):
            pass
    names = {await reader(manager) for _ in range(30)}
    assert cluster.primary.name not in names


async def test_a_primary_whose_configuration_is_read_only_serves_reads(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    cluster = breakable_cluster
    manager = make_manager()
    await manager.ready()
    async with connected(cluster.primary) as connection:
        await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await connection.execute("SELECT pg_reload_conf()")
    await role_becomes(manager, cluster.primary, Role.REPLICA)


@pytest.mark.parametrize("code", ["55000", "42501"])
async def test_a_server_that_refuses_functions_of_the_wal_is_in_service(
    breakable_cluster: LocalCluster, make_manager: MakeManager, code: str
) -> None:
    """As Aurora does; the state says what is unknown. Answered again, it is known again."""
    cluster, primary = breakable_cluster, breakable_cluster.primary
    async with connected(primary) as connection:
        await connection.execute("CREATE DATABASE aurora")
    dsn = as_application(f"postgresql://{cluster.user}:{cluster.password}@{primary.address}/aurora")
    connection = await asyncpg.connect(dsn)
    try:
        # A function of this name that is not built in.
        await connection.execute(
            "SET allow_system_table_mods = on;"
            "ALTER FUNCTION pg_current_wal_lsn() RENAME TO pg_current_wal_lsn_;"
            "CREATE FUNCTION pg_catalog.pg_current_wal_lsn() RETURNS pg_lsn"
            f" LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '{code}'; END $$"
        )
        manager = make_manager(dsn)
        await manager.ready(1, 0)
        assert "tells no timeline" in str(manager.topology)
        async with manager.acquire_master() as user:
            assert await user.fetchval("SELECT 1") == 1
        await connection.execute(
            "DROP FUNCTION pg_current_wal_lsn();"
            "ALTER FUNCTION pg_current_wal_lsn_() RENAME TO pg_current_wal_lsn"
        )
        await eventually(lambda: "tells no timeline" not in str(manager.topology))
        await manager.terminate()
    finally:
        connection.terminate()
        async with connected(primary) as admin:
            await admin.execute("DROP DATABASE aurora WITH (FORCE)")


async def test_a_login_that_comes_late_is_found_soon(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    cluster = breakable_cluster
    manager = make_manager(dsn_of(cluster, cluster.primary, login=f"late:{SECRET}"))
    async with manager:
        await asyncio.sleep(4)
        waiting = asyncio.create_task(name_of_master(manager))
        await asyncio.sleep(0.5)
        async with connected(cluster.primary) as connection:
            await connection.execute(f"CREATE ROLE late LOGIN PASSWORD '{SECRET}'")
        at = time.monotonic()
        await waiting
        assert time.monotonic() - at < 5
        await manager.terminate()
        async with connected(cluster.primary) as connection:
            await connection.execute("DROP ROLE late")


async def name_of_master(manager: PoolManager) -> str:
    async with manager.acquire_master(timeout=20) as connection:
        return await server_of(connection)


# Who is master


async def test_a_replaced_master_gets_nothing_while_the_new_one_is_in_recovery(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    cluster = breakable_cluster
    old, new = cluster.primary, cluster.replicas[0]
    manager = make_manager(acquire_timeout=0.2)
    await manager.ready()
    await asyncio.to_thread(cluster.promote, new, follow=False)
    await role_becomes(manager, old, Role.SUPERSEDED)
    assert await writer(manager, timeout=5) == new.name
    before = await writes_on(old)
    # Restarted as a standby, as by Patroni.
    await asyncio.to_thread(cluster.stop, new, "fast")
    new.standby_file.touch()
    await asyncio.to_thread(cluster.start, new)
    await role_becomes(manager, new, Role.REPLICA)
    for _ in range(40):
        with pytest.raises(AcquireTimeoutError, match="superseded by"):
            await writer(manager, timeout=0.02)
    assert await writes_on(old) == before
    # So does a process that has just started.
    late = make_manager(acquire_timeout=0.2)
    with pytest.raises(AcquireTimeoutError):
        await writer(late, timeout=3)
    assert await writes_on(old) == before
    await asyncio.to_thread(cluster.stop, new, "fast")
    new.standby_file.unlink()
    await asyncio.to_thread(cluster.start, new)
    assert await writer(manager, timeout=20) == new.name


@contextlib.asynccontextmanager
async def another_cluster() -> AsyncGenerator[LocalCluster]:
    cluster = LocalCluster(replicas=0)
    await asyncio.to_thread(cluster.start)
    try:
        yield cluster
    finally:
        await asyncio.to_thread(cluster.close)


async def test_a_foreign_host_gets_neither_writes_nor_reads(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    cluster = breakable_cluster
    old, (new, third) = cluster.primary, cluster.replicas
    async with (
        another_cluster() as elsewhere,
        FaultProxy(old) as first,
        FaultProxy(new) as second,
        FaultProxy(third) as moved,
    ):
        foreign = elsewhere.primary
        async with connected(foreign) as admin:
            await admin.execute(f"ALTER ROLE postgres PASSWORD '{cluster.password}'")
            await admin.execute(WRITES)
        manager = make_manager(dsn_of(cluster, first, second, moved), acquire_timeout=2.0)
        await manager.ready()
        moved.move_to(foreign)
        moved.cut()
        await eventually(lambda: manager.topology[moved.address].role is Role.FOREIGN)
        names = {old.name, new.name}

        async def use(count: int) -> None:
            for _ in range(count):
                with contextlib.suppress(AcquireTimeoutError, *BROKEN):
                    assert await writer(manager) in names
                with contextlib.suppress(AcquireTimeoutError, *BROKEN):
                    async with manager.acquire_replica(fallback_master=True) as connection:
                        assert await server_of(connection) in names

        await use(30)
        using = asyncio.create_task(use(100))
        await asyncio.to_thread(cluster.kill, old)
        await asyncio.to_thread(cluster.promote, new)
        await using
        assert await writer(manager, timeout=10) == new.name
        await use(30)
        async with asyncpg_to(cluster, foreign) as connection:
            assert await connection.fetchval("SELECT count(*) FROM writes") == 0
            reads = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SHOW cluster_name'"
            )
            assert reads == 0
        await manager.terminate()


@contextlib.asynccontextmanager
async def asyncpg_to(
    cluster: LocalCluster, node: Node
) -> AsyncGenerator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(
        host=node.host,
        port=node.port,
        user=cluster.user,
        password=cluster.password,
        database=cluster.database,
    )
    try:
        yield connection
    finally:
        await connection.close()


async def test_one_server_behind_two_addresses_is_one_master(
    cluster: LocalCluster, make_manager: MakeManager
) -> None:
    async with FaultProxy(cluster.primary) as one, FaultProxy(cluster.primary) as two:
        manager = make_manager(dsn_of(cluster, one, two))
        await manager.ready()
        assert manager.master_pool_count == 1
        assert {host.role for host in manager.topology} == {Role.MASTER, Role.RIVAL}
        (master,) = manager.topology.masters
        gone = one if master.address == one.address else two
        gone.move_to(Refusing())
        gone.cut()
        async with manager.acquire_master(timeout=10) as connection:
            assert await server_of(connection) == cluster.primary.name
        await manager.terminate()


class Refusing:
    """An address where nobody listens."""

    host = "127.0.0.1"
    port = 1


async def test_a_new_master_is_known_soon_though_nobody_waits(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    cluster = breakable_cluster
    took: list[float] = []
    for _ in range(2):
        old, new = cluster.primary, cluster.replicas[0]
        manager = make_manager()
        await manager.ready()
        await asyncio.to_thread(cluster.freeze, old)
        await asyncio.to_thread(cluster.promote, new)
        at = time.monotonic()
        await eventually(lambda: manager.topology[new.address].role is Role.MASTER)  # noqa: B023
        took.append(time.monotonic() - at)
        await manager.terminate()
        await asyncio.to_thread(cluster.thaw, old)
        await asyncio.to_thread(cluster.rejoin, old)
    assert statistics.median(took) < 3
    assert await fetchval(cluster.primary, "SELECT 1") == 1
