"""The reserved connection, and what servers report by themselves."""

import asyncio
import itertools
import socket
import time
from dataclasses import replace
from typing import Any, cast

import psycopg2
import pytest
from aiopg.connection import Connection
from psycopg2 import extensions, extras
from tests.adapters.on_aiopg.support import (
    TESTED,
    Driver,
    Suite,
    cancelled_at,
    closes_what_it_opens,
    free,
    of,
    opened,
    raw_of,
    reserved,
    sleeping,
)
from tests.support.waiting import PATIENCE, SOON, eventually

from pyscopg2.core.adapter import Reserves, TellsRecovery
from pyscopg2.core.dsn import parse_dsn
from pyscopg2.core.topology.role_query import PLAIN_QUERY, RICH_QUERY, parse_rich
from pyscopg2.testing.cluster import LocalCluster


class ReservedSuite(Suite):
    def test_the_adapter_has_what_the_core_asks_for(self, driver: Driver) -> None:
        assert isinstance(driver.adapter, Reserves)
        assert isinstance(driver.adapter, TellsRecovery)

    async def test_the_reserved_connection_is_not_of_the_pool(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        calls: list[object] = []

        async def on_connect(connection: Connection) -> None:
            calls.append(connection)

        class Noticed(extensions.connection):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                calls.append(args)
                super().__init__(*args, **kwargs)

        options = {
            "minsize": 1,
            "maxsize": 1,
            "on_connect": on_connect,
            "enable_hstore": True,
            "echo": True,
            "cursor_factory": extras.RealDictCursor,
            "connection_factory": Noticed,
            "options": "-c my.setting=kept",
        }
        adapter = driver.adapter
        async with (
            opened(driver, TESTED.target(cluster.primary), **options) as pool,
            reserved(driver, TESTED.target(cluster.primary), **options) as connection,
        ):
            assert len(calls) == 2, "the pool's own: a connection, and its hook"
            assert (pool.minsize, pool.maxsize, pool.size) == (1, 1, 1)
            assert adapter.get_pool_maxsize(pool) == free(pool) == 1
            assert await connection.fetch_scalar("SHOW my.setting") == "kept"
            assert await connection.fetch_scalar("SHOW application_name") == TESTED.name
            taken = await adapter.acquire_from_pool(pool)
            assert await connection.fetch_scalar("SELECT pg_backend_pid()") != str(
                driver.raw(taken).raw.get_backend_pid()
            )
            await adapter.release_to_pool(taken, pool)
            assert len(calls) == 2

    async def test_nothing_that_users_set_up_changes_what_a_check_says(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        settings = {
            "default_transaction_isolation": "serializable",
            "default_transaction_read_only": "on",
            "statement_timeout": "20",
            "search_path": "nowhere",
            "DateStyle": "German",
        }
        options = {
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
            "client_encoding": "sql_ascii",
            "cursor_factory": extras.RealDictCursor,
        }
        hostile = extensions.new_type(  # pyright: ignore[reportUnknownMemberType]  half annotated
            tuple(extensions.string_types), "HOSTILE", lambda value, _: ["not", value]
        )
        kept = dict(extensions.string_types)
        for node, recovers in ((cluster.primary, "false"), (cluster.replicas[0], "true")):
            async with reserved(driver, TESTED.target(node), **options) as connection:
                try:
                    extensions.register_type(hostile)
                    slow = "SELECT pg_sleep(0.05)::text || pg_is_in_recovery()"
                    assert await connection.fetch_scalar(slow) == recovers
                    answer = parse_rich(await connection.fetch_scalar(RICH_QUERY))
                    assert answer.in_recovery is (recovers == "true")
                    assert await connection.fetch_scalar(PLAIN_QUERY) == "on"
                    assert await connection.fetch_scalar("SELECT 1, 2") == "1"
                    assert await connection.fetch_scalar("SELECT true") == "t"
                    assert await connection.fetch_scalar("SELECT '10%'") == "10%"
                    # Its own default is none of this connection's.
                    assert await connection.fetch_scalar("SHOW statement_timeout") == "0"
                finally:
                    extensions.string_types.update(kept)
                assert not raw_of(connection).notices
                assert raw_of(connection).raw.get_transaction_status() == 0

    async def test_what_the_server_says_is_the_drivers_error(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        async with reserved(driver, TESTED.target(cluster.primary)) as connection:
            query = asyncio.ensure_future(connection.fetch_scalar("SELECT pg_sleep(60)"))
            await eventually(lambda: sleeping(cluster) == 1)
            cluster.psql(
                cluster.primary,
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
            )
            with pytest.raises(extensions.QueryCanceledError) as caught:
                await query
            assert driver.adapter.sqlstate(caught.value) == "57014"
            with pytest.raises(psycopg2.errors.UndefinedFunction):
                await connection.fetch_scalar("SELECT no_such_function()")
            with pytest.raises(psycopg2.Error):
                await connection.fetch_scalar("SELECT 1 WHERE false")
            assert await connection.fetch_scalar("SELECT 1") == "1"
            assert not connection.is_closed()

    @pytest.mark.parametrize("how", ["terminate", "server", "cancel"])
    async def test_the_end_of_a_reserved_connection_is_known(
        self, driver: Driver, cluster: LocalCluster, how: str
    ) -> None:
        async with reserved(driver, TESTED.target(cluster.primary)) as connection:
            process = await connection.fetch_scalar("SELECT pg_backend_pid()")
            if how == "server":
                cluster.psql(cluster.primary, f"SELECT pg_terminate_backend({process})")
                await eventually(connection.is_closed)
            else:
                query = asyncio.ensure_future(connection.fetch_scalar("SELECT pg_sleep(60)"))
                await eventually(lambda: sleeping(cluster) == 1)
                if how == "terminate":
                    connection.terminate()
                else:
                    query.cancel()
                with pytest.raises((psycopg2.Error, asyncio.CancelledError)) as caught:
                    async with asyncio.timeout(SOON):
                        await query
                assert isinstance(caught.value, psycopg2.Error) is (how == "terminate")
                cluster.psql(cluster.primary, f"SELECT pg_terminate_backend({process})")
            assert connection.is_closed()
            # A hang-up is known before the driver has noticed.
            await eventually(lambda: connection.in_recovery() is None)
            for _ in range(2):
                connection.terminate()
                assert connection.is_closed()
            with pytest.raises(psycopg2.Error):
                await connection.fetch_scalar("SELECT 1")

    async def test_a_hang_up_is_known_before_the_event_loop_has_turned(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        async with reserved(driver, TESTED.target(cluster.primary)) as connection:
            process = await connection.fetch_scalar("SELECT pg_backend_pid()")
            cluster.psql(cluster.primary, f"SELECT pg_terminate_backend({process}, 5000)")
            until = time.monotonic() + SOON
            while not connection.is_closed():
                assert time.monotonic() < until
                time.sleep(0.001)

    @pytest.mark.parametrize("repeated", [False, True], ids=["once", "repeated"])
    async def test_each_await_of_a_reserve_may_be_cancelled(
        self, driver: Driver, cluster: LocalCluster, repeated: bool
    ) -> None:
        adapter = cast("Reserves", driver.adapter)
        with closes_what_it_opens(cluster.primary):
            for turn in itertools.count():
                struck, connection = await cancelled_at(
                    lambda: adapter.reserve(TESTED.target(cluster.primary)), turn, repeated
                )
                if connection is not None:
                    connection.terminate()
                if not struck:
                    assert turn > 0
                    break

    @pytest.mark.parametrize("repeated", [False, True], ids=["once", "repeated"])
    async def test_each_await_of_a_check_may_be_cancelled(
        self, driver: Driver, cluster: LocalCluster, repeated: bool
    ) -> None:
        with closes_what_it_opens(cluster.primary):
            for turn in itertools.count():
                async with reserved(driver, TESTED.target(cluster.primary)) as connection:
                    struck, _ = await cancelled_at(
                        of(connection.fetch_scalar, "SELECT pg_sleep(0.01)"), turn, repeated
                    )
                if not struck:
                    assert turn > 0
                    break

    async def test_a_reserve_fails_as_a_pool_does_and_leaves_nothing(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        adapter = driver.adapter
        dsn = cluster.primary.dsn
        with closes_what_it_opens(cluster.primary):
            for wrong, code in (
                (dsn.replace(cluster.password, "wrong"), "28P01"),
                (f"{dsn.rpartition('/')[0]}/nowhere", "3D000"),
            ):
                (target,) = parse_dsn(f"{wrong}?application_name={TESTED.name}")
                with pytest.raises(psycopg2.OperationalError) as caught:
                    await adapter.reserve(target)
                assert adapter.sqlstate(caught.value) == code
            with pytest.raises(TypeError):
                await adapter.reserve(TESTED.target(cluster.primary), no_such_option=1)
            with pytest.raises(ValueError, match="maxsize"):
                await adapter.reserve(TESTED.target(cluster.primary), maxsize=-1)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            (target,) = parse_dsn(f"postgresql://u:p@127.0.0.1:{unused.getsockname()[1]}/d")
            with pytest.raises(psycopg2.OperationalError):
                await adapter.reserve(target)

    async def test_connect_timeout_limits_a_reserve_but_no_check(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        target = TESTED.target(cluster.primary, "&connect_timeout=1")
        async with reserved(driver, target, timeout=0.1) as connection:
            assert await connection.fetch_scalar("SELECT pg_sleep(1.2)") == ""
            await asyncio.to_thread(cluster.freeze, cluster.primary)
            with closes_what_it_opens(cluster.primary), pytest.raises(TimeoutError):
                await asyncio.wait_for(driver.adapter.reserve(target), PATIENCE)

    async def test_a_reserve_tries_each_address_of_a_name(
        self, driver: Driver, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def getaddrinfo(host: object, port: int, **hints: object) -> list[Any]:
            # Nobody listens on the first one.
            return [(socket.AF_INET, 0, 0, "", (ip, port)) for ip in ("127.0.0.2", "127.0.0.1")]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        dsn = cluster.primary.dsn.replace("127.0.0.1", "db.invalid")
        (target,) = parse_dsn(f"{dsn}?application_name={TESTED.name}")
        async with reserved(driver, target) as connection:
            assert await connection.fetch_scalar("SELECT 1") == "1"
            assert "host=db.invalid" in str(raw_of(connection).dsn)

    async def test_where_pg_hba_refuses_one_address_the_next_is_tried(
        self, driver: Driver, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = 'no pg_hba.conf entry for host "127.0.0.2", user "app", database "app"'
        addresses = ["127.0.0.2", "127.0.0.1"]

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)  # of what it asks for
            fields = "".join(f"{name}\0" for name in ("SFATAL", "C28000", f"M{said}", ""))
            writer.write(b"E" + (4 + len(fields)).to_bytes(4, "big") + fields.encode())
            writer.close()
            await writer.wait_closed()

        async def getaddrinfo(host: object, port: int, **hints: object) -> list[Any]:
            return [(socket.AF_INET, 0, 0, "", (ip, port)) for ip in addresses]

        target = replace(TESTED.target(cluster.primary, "&sslmode=disable"), host="db.invalid")
        adapter = driver.adapter
        async with await asyncio.start_server(refuse, "127.0.0.2", target.port):
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
            async with reserved(driver, target) as connection, opened(driver, target):
                assert await connection.fetch_scalar("SELECT 1") == "1"
            del addresses[1]
            for connect in (adapter.reserve, adapter.create_pool):
                with pytest.raises(psycopg2.OperationalError, match="pg_hba") as caught:
                    await connect(target)
                assert adapter.sqlstate(caught.value) == "28000"

    async def test_whether_a_server_is_in_recovery_is_known_without_asking(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        adapter = driver.adapter
        for node, recovers in ((cluster.primary, False), (cluster.replicas[0], True)):
            async with (
                opened(driver, TESTED.target(node), minsize=0, maxsize=1) as pool,
                reserved(driver, TESTED.target(node)) as check,
            ):
                connection = await adapter.acquire_from_pool(pool)
                assert adapter.in_recovery(connection) is recovers
                assert check.in_recovery() is recovers
                query = asyncio.ensure_future(driver.execute(connection, "SELECT pg_sleep(0.05)"))
                await asyncio.sleep(0)
                assert adapter.in_recovery(connection) is recovers, "while a query runs"
                await query
                adapter.terminate_connection(connection)
                assert adapter.in_recovery(connection) is None
                await adapter.release_to_pool(connection, pool)
                assert adapter.in_recovery(connection) is None
