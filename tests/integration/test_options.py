"""What reaches asyncpg and the server, and what is refused."""

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.asyncpg import PoolManager
from pyscopg2.core.errors import AcquireTimeoutError, DsnError, NotReadyError
from pyscopg2.core.topology import Role
from pyscopg2.testing.cluster import LocalCluster

from .support import (
    APPLICATION,
    RESERVED,
    MakeManager,
    as_application,
    backends,
    connected,
    hold_all,
    pool_of,
    release_all,
    role_becomes,
)

SECRET = "hunter2-correct-horse"
DSN = f"postgresql://app:{SECRET}@host1,host2:6432/shop"

# What asyncpg is given


async def test_sizes_are_the_users_and_the_monitor_has_one_more(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager(pool_factory_kwargs={"min_size": 2, "max_size": 3})
    await manager.ready()
    for node in cluster.nodes:
        pool = pool_of(manager, node)
        assert len(await backends(node)) == 2 + 1
        assert manager.get_pool_freesize(pool) == 3
        held = await hold_all(manager, node)
        assert len(held) == 3
        assert len(await backends(node)) == 3 + 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await manager.acquire_from_pool(pool)
        await release_all(manager, held)


async def test_without_sizes_asyncpgs_own_defaults_hold(cluster: LocalCluster) -> None:
    async with PoolManager(as_application(cluster.primary.dsn)) as manager:
        (pool,) = await manager.get_master_pools()
        assert manager.get_pool_freesize(pool) == 10
        assert pool.get_max_size() == 10
        assert len(await backends(cluster.primary)) == 11


class OwnRecord(asyncpg.Record):
    pass


async def test_options_of_the_pool_and_its_connections_reach_asyncpg(
    make_manager: MakeManager,
) -> None:
    calls: list[str] = []

    async def init(connection: object) -> None:
        calls.append("init")

    async def setup(connection: object) -> None:
        calls.append("setup")

    manager = make_manager(
        pool_factory_kwargs={
            "init": init,
            "setup": setup,
            "command_timeout": 0.2,
            "server_settings": {"search_path": "elsewhere", "statement_timeout": "77s"},
            "record_class": OwnRecord,
            "statement_cache_size": 0,
            "max_queries": 2,
        }
    )
    await manager.ready()
    calls.clear()
    async with manager.acquire() as connection:
        assert calls == ["init", "setup"]
        assert await connection.fetchval("SHOW search_path") == "elsewhere"
        assert await connection.fetchval("SHOW statement_timeout") == "77s"
        assert isinstance(await connection.fetchrow("SELECT 1"), OwnRecord)
        # Only the statement that asks: nothing was kept.
        count = "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"
        assert await connection.fetchval(count) == 0
        with pytest.raises(TimeoutError):
            await connection.execute("SELECT pg_sleep(60)")
    await manager.wait_next_pool_check()
    async with manager.acquire() as connection:
        assert calls == ["init", "setup"] * 2


async def test_statements_are_cached_as_asyncpg_does(make_manager: MakeManager) -> None:
    manager = make_manager()
    async with manager.acquire() as connection:
        await connection.fetchval("SELECT 1")
        assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements") >= 1


async def test_the_password_may_be_a_callable(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    asked = 0

    async def password() -> str:
        nonlocal asked
        asked += 1
        return cluster.password

    without = as_application(cluster.dsn.replace(f":{cluster.password}@", "@"))
    manager = make_manager(without, pool_factory_kwargs={"password": password})
    await manager.ready()
    assert asked == 3


# What the DSN says


async def test_the_parameters_of_the_dsn_are_asyncpgs(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    options = "options=-c%20statement_timeout%3D76s"
    dsn = f"{as_application(cluster.dsn)}&sslmode=prefer&connect_timeout=9&{options}"
    manager = make_manager(dsn)
    await manager.ready()
    async with manager.acquire() as connection:
        assert await connection.fetchval("SHOW application_name") == APPLICATION
        assert await connection.fetchval("SHOW statement_timeout") == "76s"


async def test_a_keyword_value_dsn(make_manager: MakeManager, cluster: LocalCluster) -> None:
    hosts = ",".join(node.host for node in cluster.nodes)
    ports = ",".join(str(node.port) for node in cluster.nodes)
    manager = make_manager(
        f"host={hosts} port={ports} user={cluster.user} password='{cluster.password}'"
        f" dbname={cluster.database} application_name={APPLICATION}"
    )
    await manager.ready(masters_count=1, replicas_count=2)


async def test_the_connect_timeout_of_the_dsn_bounds_a_connect(
    breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    frozen = breakable_cluster.replicas[0]
    await asyncio.to_thread(breakable_cluster.freeze, frozen)
    dsn = as_application(frozen.dsn) + "&connect_timeout=1"
    manager = make_manager(dsn, refresh_timeout=60)
    began = time.monotonic()
    async with manager:
        await role_becomes(manager, frozen, Role.UNAVAILABLE)
        assert 0.9 < time.monotonic() - began < 15


@pytest.mark.parametrize("attrs", ["read-write", "primary", "standby", "prefer-standby"])
async def test_target_session_attrs_in_the_dsn_costs_no_host_its_place(
    make_manager: MakeManager, cluster: LocalCluster, attrs: str
) -> None:
    manager = make_manager(f"{as_application(cluster.dsn)}&target_session_attrs={attrs}")
    await manager.ready(masters_count=1, replicas_count=2)
    assert await writer_and_reader_work(manager)


async def test_target_session_attrs_in_the_environment_costs_no_host_its_place(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    manager = make_manager()
    await manager.ready(masters_count=1, replicas_count=2)
    assert await writer_and_reader_work(manager)


async def writer_and_reader_work(manager: PoolManager) -> bool:
    async with manager.acquire() as master, manager.acquire(read_only=True) as replica:
        return (
            await master.fetchval("SELECT pg_is_in_recovery()") is False
            and await replica.fetchval("SELECT pg_is_in_recovery()") is True
        )


# Who asks


@pytest.fixture
async def login(cluster: LocalCluster) -> AsyncIterator[str]:
    """The DSN of a login without any privilege, in a database of its own."""
    async with connected(cluster.primary) as connection:
        await connection.execute(f"CREATE ROLE app LOGIN PASSWORD '{SECRET}'")
        await connection.execute("CREATE DATABASE shop")
        await asyncio.to_thread(cluster.wait_streaming)
        hosts = ",".join(node.address for node in cluster.nodes)
        yield as_application(f"postgresql://app:{SECRET}@{hosts}/shop")
        await connection.execute("DROP DATABASE shop WITH (FORCE)")
        await connection.execute("DROP ROLE app")
    await asyncio.to_thread(cluster.wait_streaming)


async def nothing_is_left_open_by_the_checks(manager: PoolManager, cluster: LocalCluster) -> None:
    await manager.wait_next_pool_check()
    for node in cluster.nodes:

        async def is_idle() -> bool:
            (row,) = await backends(node, RESERVED)  # noqa: B023  awaited at once
            return (
                row["state"] == "idle"
                and row["xact_start"] is None
                and row["backend_xmin"] is None
                and row["backend_xid"] is None
            )

        await eventually(is_idle, f"the reserved connection to {node!r} is in no transaction")


async def test_the_rich_probe_needs_no_privilege(
    make_manager: MakeManager, cluster: LocalCluster, login: str
) -> None:
    manager = make_manager(login)
    await manager.ready(masters_count=1, replicas_count=2)
    for host in manager.topology:
        assert host.answer is not None
        assert host.answer.rich
        assert host.answer.lsn is not None
    assert "no fencing" not in str(manager.topology)
    await nothing_is_left_open_by_the_checks(manager, cluster)


async def test_where_the_rich_probe_is_refused_the_plain_one_tells_the_roles(
    make_manager: MakeManager, cluster: LocalCluster, login: str
) -> None:
    await asyncio.to_thread(
        cluster.psql,
        cluster.primary,
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC",
        database="shop",
    )
    await asyncio.to_thread(cluster.wait_streaming)
    manager = make_manager(login)
    await manager.ready(masters_count=1, replicas_count=2)
    for node in cluster.nodes:
        role = "master" if node is cluster.primary else "replica"
        shown = str(manager.topology[node.address])
        assert shown == f"{node.address} {role} (tells no timeline: no fencing)"
    await nothing_is_left_open_by_the_checks(manager, cluster)
    assert await writer_and_reader_work(manager)


# What is refused, and what the errors tell


def everything_told(exc: BaseException, *others: object) -> str:
    return "".join(traceback.format_exception(exc)) + repr(exc) + str(exc) + repr(others)


@pytest.mark.parametrize(
    ("dsn", "names"),
    [
        (f"postgresql://app:{SECRET}@host:port/shop", "port"),
        (f"postgresql://app:{SECRET}@host:99999/shop", "port"),
        (f"postgresql://app:{SECRET}@host/shop?sslmode=nonsense", "sslmode"),
        (f"postgresql://app:{SECRET}@[::1/shop", r"\["),
        (f"http://app:{SECRET}@host/shop", "."),
        (f"host=a,b port=1,2,3 password={SECRET}", "port"),
        (f"host=a password='{SECRET}", "quote"),
    ],
)
def test_a_malformed_dsn_is_refused_by_the_constructor(dsn: str, names: str) -> None:
    with pytest.raises(DsnError, match=names) as caught:
        PoolManager(dsn)
    assert isinstance(caught.value, ValueError)
    assert SECRET not in everything_told(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        ({"pool_factory_kwargs": {"host": "other"}}, TypeError, "host"),
        ({"pool_factory_kwargs": {"port": 5433}}, TypeError, "port"),
        ({"pool_factory_kwargs": {"dsn": "postgresql://other"}}, TypeError, "dsn"),
        ({"pool_factory_kwargs": {"nonsense": 1}}, TypeError, "nonsense"),
        ({"pool_factory_kwargs": {"min_size": 5, "max_size": 2}}, ValueError, "min_size"),
        ({"pool_factory_kwargs": {"min_size": 11}}, ValueError, "min_size"),
        ({"pool_factory_kwargs": {"min_size": -1}}, ValueError, "min_size"),
        ({"pool_factory_kwargs": {"max_size": 0}}, ValueError, "max_size"),
        ({"acquire_timeout": -1}, ValueError, "acquire_timeout"),
        ({"refresh_delay": -1}, ValueError, "refresh_delay"),
        ({"refresh_timeout": -1}, ValueError, "refresh_timeout"),
        ({"refresh_timeout": 0}, ValueError, "refresh_timeout"),
        ({"abandon_timeout": -1}, ValueError, "abandon_timeout"),
        ({"acquire_timeout": "1"}, TypeError, "acquire_timeout"),
        ({"refresh_delay": float("nan")}, ValueError, "refresh_delay"),
        ({"stopwatch_window_size": 0}, ValueError, "window_size"),
        ({"balancer_policy": "greedy"}, TypeError, "balancer_policy"),
        ({"balancer_policy": int}, TypeError, "balancer_policy"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
)
def test_bad_arguments_are_refused_by_the_constructor(
    arguments: dict[str, Any], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names) as caught:
        PoolManager(DSN, **arguments)
    assert SECRET not in everything_told(caught.value)


async def test_bad_times_are_refused_by_the_methods(make_manager: MakeManager) -> None:
    manager = make_manager()
    for acquire in (manager.acquire, manager.acquire_master, manager.acquire_replica):
        with pytest.raises(ValueError, match="timeout"):
            acquire(timeout=-1)
    with pytest.raises(ValueError, match="timeout"):
        await manager.ready(timeout=-1)
    with pytest.raises(ValueError, match="timeout"):
        await manager.wait_next_pool_check(timeout=-1)
    with pytest.raises(ValueError, match="timeout"):
        await manager.close(timeout=-1)


@pytest.mark.parametrize(
    ("user", "password", "database", "cause"),
    [
        ("postgres", SECRET, "postgres", asyncpg.InvalidPasswordError),
        ("nobody", SECRET, "postgres", asyncpg.InvalidPasswordError),
        ("postgres", None, "nowhere", asyncpg.InvalidCatalogNameError),
    ],
    ids=["wrong password", "unknown login", "unknown database"],
)
async def test_what_waiting_does_not_heal_is_told_at_once_with_its_cause(
    make_manager: MakeManager,
    cluster: LocalCluster,
    caplog: pytest.LogCaptureFixture,
    user: str,
    password: str | None,
    database: str,
    cause: type[Exception],
) -> None:
    caplog.set_level(logging.DEBUG)
    password = password or cluster.password
    hosts = ",".join(node.address for node in cluster.nodes)
    manager = make_manager(as_application(f"postgresql://{user}:{password}@{hosts}/{database}"))
    began = time.monotonic()
    with pytest.raises(NotReadyError, match=cause.__name__) as not_ready:
        await manager.ready(timeout=60)
    assert time.monotonic() - began < 10
    assert isinstance(not_ready.value.__cause__, cause)

    with pytest.raises(AcquireTimeoutError, match=cause.__name__) as timed_out:
        await manager.acquire(timeout=0.2)
    assert isinstance(timed_out.value.__cause__, cause)

    told = everything_told(not_ready.value, manager, manager.topology, list(manager.topology))
    assert password not in told + everything_told(timed_out.value) + caplog.text


async def test_hopeless_hosts_are_asked_ever_more_slowly(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    address = cluster.primary.address
    dsn = as_application(f"postgresql://postgres:{SECRET}@{address}/postgres")
    manager = make_manager(dsn, refresh_delay=0.02)
    with pytest.raises(AcquireTimeoutError):
        await manager.acquire(timeout=1)
    # 0.04, 0.08, 0.16, 0.32, 0.64 seconds apart, and not every 0.02.
    assert manager.topology[address].serial <= 8


async def test_a_misspelt_parameter_is_named_and_not_waited_for(
    cluster: LocalCluster, make_manager: MakeManager
) -> None:
    dsn = f"{as_application(cluster.dsn)}&statment_timeout=5000"
    manager = make_manager(dsn)
    with pytest.raises(NotReadyError, match="no use in waiting") as caught:
        await manager.ready(timeout=PATIENCE)
    assert 'unrecognized configuration parameter "statment_timeout"' in str(caught.value)
    assert cluster.password not in str(caught.value)
    assert any(host.hopeless for host in manager.topology)
