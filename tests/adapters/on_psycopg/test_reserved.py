"""The connection for a host's checks, whose answers no setting of the user's changes."""

import asyncio
import contextlib
import gc
import warnings
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.adapt import Loader
from psycopg.rows import dict_row
from tests.adapters.on_psycopg.support import TESTED, Connection, backends, free, opened
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.core.adapter import ReservedConnection, Reserves, TellsRecovery
from pyscopg2.core.topology.role_query import PLAIN_QUERY, RICH_QUERY, parse_rich
from pyscopg2.psycopg import PsycopgAdapter
from pyscopg2.testing.cluster import LocalCluster, Node

SETTINGS = [
    "client_encoding = sql_ascii",
    "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on",
    "DateStyle = 'German, DMY'",
    "statement_timeout = 50",
    "search_path = shadow, pg_catalog",
    "standard_conforming_strings = off",
]


@contextlib.asynccontextmanager
async def reserved(
    adapter: PsycopgAdapter, node: Node, params: str = "", **options: Any
) -> AsyncGenerator[ReservedConnection]:
    connection = await adapter.reserve(TESTED.target(node, params), **options)
    try:
        yield connection
    finally:
        connection.terminate()


@pytest.fixture
def text_in_capitals() -> Iterator[None]:
    class Shout(Loader):
        def load(self, data: Any) -> str:
            return bytes(data).decode().upper()

    before = psycopg.adapters.get_loader(25, psycopg.pq.Format.TEXT)
    assert before is not None
    psycopg.adapters.register_loader("text", Shout)
    yield
    psycopg.adapters.register_loader("text", before)


def test_the_adapter_offers_it() -> None:
    adapter = PsycopgAdapter()
    assert isinstance(adapter, Reserves)
    assert isinstance(adapter, TellsRecovery)


async def test_values_come_as_the_server_wrote_them(
    adapter: PsycopgAdapter, cluster: LocalCluster, text_in_capitals: None
) -> None:
    async with reserved(adapter, cluster.primary) as connection:
        assert await connection.fetch_scalar("SELECT 'a b', 2") == "a b"
        assert await connection.fetch_scalar("SELECT '%s' || 'ä'") == "%sä"
        assert await connection.fetch_scalar("SELECT 1") == "1"
        assert await connection.fetch_scalar("SELECT NULL") is None
        assert await connection.fetch_scalar("SELECT 1 WHERE false") is None
        assert await connection.fetch_scalar(PLAIN_QUERY) == "off"


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("standby", [False, True], ids=["primary", "standby"])
async def test_the_sessions_defaults_change_nothing(
    adapter: PsycopgAdapter, cluster: LocalCluster, setting: str, standby: bool
) -> None:
    name, _, value = setting.partition(" = ")
    option = f"&options=-c%20{name}%3D{value.replace(' ', '%5C%20').replace(chr(39), '')}"
    (replica,) = cluster.replicas
    node = replica if standby else cluster.primary

    async with reserved(adapter, node, option) as connection:
        shown = await connection.fetch_scalar(f"SHOW {name}")
        assert shown not in ("", None)
        answer = parse_rich(await connection.fetch_scalar(RICH_QUERY))
        assert (answer.in_recovery, answer.read_only) == (standby, standby)
        assert await connection.fetch_scalar(PLAIN_QUERY) == ("on" if standby else "off")
        assert connection.in_recovery() is standby
        assert await connection.fetch_scalar("SELECT 'slow' FROM pg_sleep(0.2)") == "slow"


async def test_a_check_is_quiet_and_one_transaction(
    adapter: PsycopgAdapter, alone: LocalCluster
) -> None:
    """No warning, no transaction that stays open, nothing that lasts."""
    timeout = "&options=-c%20statement_timeout%3D7s"
    async with reserved(adapter, alone.primary, timeout) as connection:
        await connection.fetch_scalar(RICH_QUERY)
        await connection.fetch_scalar(PLAIN_QUERY)
        with pytest.raises(psycopg.errors.UndefinedFunction):
            await connection.fetch_scalar("SELECT no_such_function()")
        sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tested'"
        sql += " AND xact_start IS NOT NULL"
        assert await asyncio.to_thread(alone.psql, alone.primary, sql) == "0"
        assert "WARNING" not in alone.primary.log_file.read_text()
        # The server does warn of what is set in a transaction of its own.
        await asyncio.to_thread(alone.psql, alone.primary, "SET LOCAL statement_timeout = 0")
        assert "WARNING" in alone.primary.log_file.read_text()


async def test_what_the_pool_is_told_of_its_connections_does_not_count(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """What it is told of connecting does, for which a class of the user's may be needed."""

    async def fail(connection: Connection) -> None:
        raise AssertionError("a hook")

    class ByToken(psycopg.AsyncConnection[Any]):
        @classmethod
        async def connect(cls, *args: Any, **kwargs: Any) -> Any:
            assert not {"autocommit", "prepare_threshold", "row_factory"} & kwargs.keys()
            connection = await super().connect(*args, password=kwargs.pop("token"), **kwargs)
            async with psycopg.AsyncCursor(connection) as cursor:
                await cursor.execute("SELECT 'and leaves a transaction open'")
            return connection

        def cursor(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("a question of ours")

    kwargs = {
        "token": cluster.password,
        "application_name": "tested by kwargs",
        "autocommit": False,
        "prepare_threshold": 0,
        "row_factory": dict_row,
    }
    options: dict[str, Any] = {
        "min_size": 0,
        "max_size": 1,
        "kwargs": kwargs,
        "connection_class": ByToken,
        "configure": fail,
        "check": fail,
        "reset": fail,
    }
    async with reserved(adapter, cluster.primary, "&password=wrong", **options) as connection:
        for _ in range(3):
            assert await connection.fetch_scalar("SHOW application_name") == "tested by kwargs"
        sql = "SELECT count(*) FROM pg_prepared_statements"
        assert await connection.fetch_scalar(sql) == "0"


@pytest.mark.parametrize("how", ["function", "coroutine function"])
async def test_kwargs_may_be_callable(
    adapter: PsycopgAdapter, cluster: LocalCluster, how: str
) -> None:
    def kwargs() -> dict[str, Any]:
        return {"password": cluster.password}

    async def awaited() -> dict[str, Any]:
        return kwargs()

    options = {"kwargs": kwargs if how == "function" else awaited}
    async with reserved(adapter, cluster.primary, "&password=wrong", **options) as connection:
        assert await connection.fetch_scalar("SELECT 1") == "1"


async def test_refusals_are_as_those_of_a_pool(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        await adapter.reserve(TESTED.target(cluster.primary, "&password=wrong"))
    assert adapter.sqlstate(caught.value) == "28P01"
    with pytest.raises(TypeError):
        await adapter.reserve(TESTED.target(cluster.primary), no_such_option=1)


async def test_a_promotion_is_told_with_the_next_answer(
    adapter: PsycopgAdapter,
) -> None:
    with LocalCluster(replicas=1) as cluster:
        (replica,) = cluster.replicas
        async with reserved(adapter, replica) as connection, opened(adapter, replica) as pool:
            users = await adapter.acquire_from_pool(pool)
            assert adapter.in_recovery(users) is True
            await asyncio.to_thread(cluster.promote, replica)
            assert await connection.fetch_scalar("SELECT pg_is_in_recovery()") == "f"
            assert connection.in_recovery() is False
            await users.execute("SELECT 1")
            assert adapter.in_recovery(users) is False
            adapter.terminate_connection(users)
            assert adapter.in_recovery(users) is None
            connection.terminate()
            assert connection.in_recovery() is None


@pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
@pytest.mark.parametrize("how", ["terminated", "cancelled"])
async def test_a_question_that_waits_can_be_ended(
    adapter: PsycopgAdapter, cluster: LocalCluster, frozen: bool, how: str
) -> None:
    async with reserved(adapter, cluster.primary) as connection:
        asking = asyncio.ensure_future(connection.fetch_scalar("SELECT pg_sleep(60)"))
        sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        await eventually(lambda: cluster.psql(cluster.primary, sql) != "0", "the query is sent")
        if frozen:
            await asyncio.to_thread(cluster.freeze, cluster.primary)
        try:
            assert not connection.is_closed()
            if how == "terminated":
                connection.terminate()
                assert connection.is_closed()
            else:
                asking.cancel()
            await asyncio.wait({asking}, timeout=2)
            assert asking.done()
            if how == "terminated":
                with pytest.raises(psycopg.OperationalError):
                    await asking
            else:
                assert asking.cancelled()
            assert connection.is_closed()
            connection.terminate()
            with pytest.raises(psycopg.OperationalError):
                await connection.fetch_scalar("SELECT 1")
        finally:
            await asyncio.to_thread(cluster.thaw, cluster.primary)
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        await asyncio.to_thread(cluster.psql, cluster.primary, end)


async def test_a_query_that_the_server_cancels_is_an_error(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    async with reserved(adapter, cluster.primary) as connection:
        asking = asyncio.ensure_future(connection.fetch_scalar("SELECT pg_sleep(60)"))
        sql = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity"
        sql += " WHERE wait_event = 'PgSleep'"
        await eventually(lambda: cluster.psql(cluster.primary, sql) != "0", "it is cancelled")
        with pytest.raises(psycopg.errors.QueryCanceled):
            await asking
        assert await connection.fetch_scalar("SELECT 1") == "1"


async def test_a_hangup_is_seen_without_asking(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    async with reserved(adapter, cluster.primary) as connection:
        pid = await connection.fetch_scalar("SELECT pg_backend_pid()")
        sql = f"SELECT pg_terminate_backend({pid}, 5000)"
        await asyncio.to_thread(cluster.psql, cluster.primary, sql)
        await eventually(connection.is_closed, "the end of the stream")
        with pytest.raises(psycopg.OperationalError):
            await connection.fetch_scalar("SELECT 1")


async def test_cancelled_it_leaves_no_socket(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """And none for the garbage collector, wherever it is cancelled."""
    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for turn in range(12):
                reserving = asyncio.ensure_future(adapter.reserve(TESTED.target(cluster.primary)))
                for _ in range(turn):
                    await asyncio.sleep(0.001)
                reserving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    (await reserving).terminate()
                del reserving
                await eventually(
                    lambda: not backends(cluster, cluster.primary), "a backend is left"
                )
    finally:
        gc.enable()


async def test_it_is_not_among_the_pools(adapter: PsycopgAdapter, cluster: LocalCluster) -> None:
    async with (
        reserved(adapter, cluster.primary) as connection,
        opened(adapter, cluster.primary, min_size=0, max_size=1) as pool,
    ):
        assert (pool.min_size, pool.max_size) == (0, 1)
        assert free(pool) == 1
        async with asyncio.timeout(PATIENCE):
            users = await adapter.acquire_from_pool(pool)
        assert free(pool) == 0
        assert await connection.fetch_scalar("SELECT 1") == "1"
        await adapter.release_to_pool(users, pool)
        assert free(pool) == 1
