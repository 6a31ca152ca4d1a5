"""What users say of the pool and in the DSN, and what is refused."""

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import psycopg_pool
import pytest
from psycopg.rows import TupleRow, dict_row
from tests.adapters.on_psycopg.support import TESTED, backends, opened
from tests.support.waiting import PATIENCE, SOON, eventually

from pyscopg2.psycopg import PoolManager, PsycopgAdapter
from pyscopg2.testing.cluster import LocalCluster


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, (4, 4)),
        ({"max_size": None}, (4, 4)),
        ({"min_size": 2}, (2, 2)),
        ({"min_size": 0, "max_size": 1}, (0, 1)),
        ({"max_size": 10}, (4, 10)),
    ],
    ids=str,
)
async def test_sizes_are_the_users(
    adapter: PsycopgAdapter,
    cluster: LocalCluster,
    options: dict[str, Any],
    sizes: tuple[int, int],
) -> None:
    async with opened(adapter, cluster.primary, **options) as pool:
        assert (pool.min_size, pool.max_size) == sizes
        assert adapter.get_pool_maxsize(pool) == sizes[1]


@pytest.mark.parametrize(
    "options",
    [
        {"min_size": -1},
        {"min_size": 0},
        {"min_size": 5, "max_size": 4},
        {"max_size": 3},
        {"min_size": "2"},
        {"num_workers": 0},
        {"close_returns": True},
    ],
    ids=str,
)
def test_wrong_values_are_told_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        PoolManager("host=a", pool_factory_kwargs=options)


@pytest.mark.parametrize(
    "options",
    [
        {"no_such_option": 1},
        {"open": True},
        {"conninfo": "host=a"},
        {"kwargs": {"host": "a"}},
        {"kwargs": {"target_session_attrs": "any"}},
        {"kwargs": {"no_such_argument": 1}},
    ],
    ids=str,
)
def test_unknown_options_are_told_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        PoolManager("host=a", pool_factory_kwargs=options)


async def test_arguments_of_connect_go_into_kwargs(cluster: LocalCluster) -> None:
    kwargs = {"autocommit": True, "row_factory": dict_row, "application_name": "mine"}
    manager = PoolManager(cluster.dsn, pool_factory_kwargs={"kwargs": kwargs})
    async with manager, manager.acquire_master() as connection:
        assert connection.autocommit
        cursor = await connection.execute("SHOW application_name")
        row: Any = await cursor.fetchone()
        assert row == {"application_name": "mine"}


@pytest.mark.skipif(
    tuple(map(int, psycopg_pool.__version__.split(".")[:2])) < (3, 3),
    reason="psycopg_pool takes callables since 3.3",
)
async def test_a_password_may_come_from_a_callable(cluster: LocalCluster) -> None:
    async def kwargs() -> dict[str, Any]:
        return {"password": cluster.password}

    dsn = cluster.dsn.replace(cluster.password, "wrong")
    manager = PoolManager(dsn, pool_factory_kwargs={"kwargs": kwargs})
    async with manager, manager.acquire_master(timeout=PATIENCE) as connection:
        await connection.execute("SELECT 1")


async def test_other_options_mean_what_they_mean_in_the_pool(cluster: LocalCluster) -> None:
    class MyConnection(psycopg.AsyncConnection[TupleRow]):
        pass

    called: list[str] = []

    async def configure(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        called.append("configure")

    async def reset(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        called.append("reset")

    async def check(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        called.append("check")

    options = {
        "connection_class": MyConnection,
        "configure": configure,
        "reset": reset,
        "check": check,
        "name": "mine",
        "timeout": 7.0,
        "max_waiting": 8,
        "max_lifetime": 9.0,
        "max_idle": 10.0,
        "reconnect_timeout": 11.0,
        "num_workers": 2,
    }
    async with PoolManager(cluster.dsn, pool_factory_kwargs=options) as manager:
        async with manager.acquire_master(timeout=PATIENCE) as connection:
            assert isinstance(connection, MyConnection)
        await eventually(lambda: {"configure", "reset", "check"} == set(called), str(called))
        pool = await manager.get_pool(read_only=False)
        assert pool.name == "mine"
        assert (pool.timeout, pool.max_waiting) == (7.0, 8)
        assert (pool.max_lifetime, pool.max_idle) == (9.0, 10.0)
        assert (pool.reconnect_timeout, pool.num_workers) == (11.0, 2)


async def test_a_configure_that_fails_is_the_error_of_the_pool(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    async def fail(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        raise ZeroDivisionError

    async def leave_open(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        await connection.execute("SELECT 1")

    async with asyncio.timeout(SOON):
        with pytest.raises(ZeroDivisionError):
            await adapter.create_pool(TESTED.target(cluster.primary), configure=fail)
        with pytest.raises(psycopg.ProgrammingError, match="left a transaction open"):
            await adapter.create_pool(TESTED.target(cluster.primary), configure=leave_open)
    await eventually(lambda: not backends(cluster, cluster.primary), "backends are left")


async def test_parameters_of_the_dsn_reach_libpq(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    params = "&options=-c%20work_mem%3D3MB&connect_timeout=7"
    pool = await adapter.create_pool(TESTED.target(cluster.primary, params))
    connection = await adapter.acquire_from_pool(pool)
    assert await adapter.fetch_scalar(connection, "SHOW work_mem") == "3MB"
    assert await adapter.fetch_scalar(connection, "SHOW application_name") == "tested"
    assert connection.info.get_parameters()["connect_timeout"] == "7"
    await adapter.terminate_pool(pool)
    with pytest.raises(psycopg.OperationalError, match="SSL"):
        await adapter.create_pool(TESTED.target(cluster.primary, "&sslmode=require"))


async def test_to_choose_a_host_is_not_libpqs_work(
    adapter: PsycopgAdapter, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    (replica,) = cluster.replicas
    params = "&target_session_attrs=primary&load_balance_hosts=random"
    pool = await adapter.create_pool(TESTED.target(replica, params))
    connection = await adapter.acquire_from_pool(pool)
    assert await adapter.fetch_scalar(connection, "SELECT pg_is_in_recovery()") is True
    await adapter.terminate_pool(pool)


def test_a_parameter_that_libpq_refuses_is_told_at_construction() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        PoolManager("postgresql://a/%ff")


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"password": "wrong"}, "28P01"),
        ({"user": "nobody"}, "28P01"),
        ({"dbname": "nowhere"}, "3D000"),
        ({"password": ""}, "28P01"),
    ],
    ids=str,
)
async def test_refusals_have_their_sqlstate(
    adapter: PsycopgAdapter,
    cluster: LocalCluster,
    params: dict[str, Any],
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    with pytest.raises(psycopg.OperationalError) as caught:
        await psycopg.AsyncConnection.connect(cluster.primary.dsn, **params)
    assert adapter.sqlstate(caught.value) == code
