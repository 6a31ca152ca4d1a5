"""The monitor's connection, apart from the pool: what users set up does not reach it."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
from tests.adapters.on_asyncpg.support import Bench, Driver, RoundTrips, Suite, alive, interrupted
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.core.adapter import ReservedConnection, Reserves, TellsRecovery
from pyscopg2.testing.cluster import LocalCluster

QUERY = "SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_is_in_recovery(), 'ä')"
"""As the core's, but for a letter that needs an encoding."""


class ReservedSuite(Suite):
    def test_it_is_one_of_the_cores(self) -> None:
        assert isinstance(self.driver.adapter, Reserves)
        assert isinstance(self.driver.adapter, TellsRecovery)

    async def test_a_question_is_answered_as_the_server_wrote_it(self, bench: Bench) -> None:
        reserved: ReservedConnection
        async with bench.reserved() as reserved:
            assert await reserved.fetch_scalar(QUERY) == "f ä"
            assert await reserved.fetch_scalar("SHOW transaction_read_only") == "off"
            assert await reserved.fetch_scalar("SELECT true") == "t"
            assert await reserved.fetch_scalar("SELECT false") == "f"
            assert await reserved.fetch_scalar("SELECT 42::bigint") == "42"
            assert await reserved.fetch_scalar("SELECT NULL") is None

    async def test_no_hook_of_the_pools_sees_it(self, bench: Bench) -> None:
        seen: list[str] = []

        class Own(asyncpg.Connection):
            async def fetchval(self, *args: Any, **kwargs: Any) -> Any:
                seen.append("class")
                return await super().fetchval(*args, **kwargs)

        class OwnRecord(asyncpg.Record):
            pass

        def hook(name: str) -> Callable[[Any], Any]:
            def told(of: object) -> None:
                seen.append(f"{name}: {of}")

            async def see(connection: Any) -> None:
                seen.append(name)
                connection.add_query_logger(told)
                await connection.set_type_codec(
                    "text", schema="pg_catalog", encoder=str, decoder=told
                )

            return see

        options: dict[str, Any] = {
            **{name: hook(name) for name in ("init", "setup", "reset")},
            "connection_class": Own,
            "record_class": OwnRecord,
            "command_timeout": 0.0001,
            "min_size": 1,
            "max_size": 1,
            "max_queries": 1,
        }
        async with bench.reserved(**options) as reserved:
            assert await reserved.fetch_scalar(QUERY) == "f ä"
            assert seen == []

    async def test_no_wrapper_of_asyncpgs_methods_sees_it_twice(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As tracers put around them."""
        async with bench.reserved() as reserved:
            await reserved.fetch_scalar(QUERY)
            for name in ("execute", "fetch", "fetchval", "fetchrow", "cursor", "prepare"):
                monkeypatch.delattr(asyncpg.Connection, name)
            assert await reserved.fetch_scalar(QUERY) == "f ä"

    async def test_what_options_say_of_connecting_is_heard(self, bench: Bench) -> None:
        asked: list[str] = []

        async def password() -> str:
            asked.append("password")
            return bench.cluster.password

        options: dict[str, Any] = {
            "password": password,
            "server_settings": {"geqo": "off", "application_name": bench.name},
            "timeout": PATIENCE,
        }
        async with bench.reserved(**options) as reserved:
            assert await reserved.fetch_scalar("SHOW geqo") == "off"
        assert asked == ["password"]

    async def test_a_users_own_way_to_connect_is_gone_but_its_codecs_are_not_used(
        self, bench: Bench
    ) -> None:
        given: list[dict[str, Any]] = []

        async def connect(*args: Any, **kwargs: Any) -> Any:
            given.append(kwargs)
            connection: Any = await asyncpg.connect(*args, **kwargs)
            await connection.set_type_codec(
                "text", schema="pg_catalog", encoder=str, decoder=str.upper
            )
            return connection

        options: dict[str, Any] = {"connect": connect, "min_size": 1, "max_size": 1}
        async with bench.pool(**options) as pool:
            connection = await bench.acquire(pool)
            assert await connection.fetchval("SELECT 'x'::text") == "X"
            await bench.release(connection, pool)
            async with bench.reserved(**options) as reserved:
                assert await reserved.fetch_scalar(QUERY) == "f ä"
        apart = given[-1]
        assert apart["connection_class"] is asyncpg.Connection
        assert apart["record_class"] is asyncpg.Record
        assert apart["loop"] is asyncio.get_running_loop()

    @pytest.mark.parametrize("place", ["settings", "options", "role"])
    async def test_an_encoding_of_the_users_is_not_used(self, bench: Bench, place: str) -> None:
        options: dict[str, Any] = {}
        target = bench.target()
        if place == "settings":
            options["server_settings"] = {"Client_Encoding": "sql_ascii"}
        elif place == "options":
            target = bench.target(options="-c%20client_encoding%3Dsql_ascii")
        else:
            await bench.psql("ALTER ROLE CURRENT_USER SET client_encoding = sql_ascii")
        try:
            reserved = await bench.adapter.reserve(target, **options)
            try:
                assert await reserved.fetch_scalar("SHOW client_encoding") == "UTF8"
                assert await reserved.fetch_scalar(QUERY) == "f ä"
            finally:
                reserved.terminate()
        finally:
            await bench.psql("ALTER ROLE CURRENT_USER RESET client_encoding")

    @pytest.mark.parametrize("size", [100, 0], ids=["cached", "as for a pooler"])
    async def test_a_question_takes_one_round_trip(self, bench: Bench, size: int) -> None:
        async with (
            RoundTrips(bench.node).serving() as counting,
            bench.reserved(counting, statement_cache_size=size) as reserved,
        ):
            await reserved.fetch_scalar(QUERY)
            counting.count = 0
            for _ in range(5):
                assert await reserved.fetch_scalar(QUERY) == "f ä"
            assert counting.count == 5

    async def test_no_statement_has_a_name_where_the_user_wants_none(self, bench: Bench) -> None:
        named = "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"
        async with bench.reserved(statement_cache_size=0) as reserved:
            for _ in range(2):
                assert await reserved.fetch_scalar(QUERY) == "f ä"
                assert await reserved.fetch_scalar(named) == "0"

    async def test_a_short_timeout_for_statements_is_not_its_own(self, bench: Bench) -> None:
        long = "SELECT 'done' FROM pg_sleep(0.5)"
        settings = {"statement_timeout": "100ms", "application_name": bench.name}
        async with bench.reserved(server_settings=settings) as reserved:
            for _ in range(2):
                assert await reserved.fetch_scalar(long) == "done"
            assert await reserved.fetch_scalar("SHOW statement_timeout") == "0"
            assert await self._open_transactions(bench) == "0"

    async def test_a_query_that_is_cancelled_on_the_server_fails(self, bench: Bench) -> None:
        async with bench.reserved() as reserved:
            asking = asyncio.ensure_future(reserved.fetch_scalar("SELECT 'x' FROM pg_sleep(60)"))
            await bench.running("pg_sleep(60)")
            await bench.psql(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                f" WHERE application_name = '{bench.name}'"
            )
            with pytest.raises(asyncpg.QueryCanceledError) as caught:
                await asyncio.wait_for(asking, PATIENCE)
            assert bench.adapter.sqlstate(caught.value) == "57014"
            assert await reserved.fetch_scalar(QUERY) == "f ä"

    async def test_errors_are_the_servers_and_leave_no_transaction(self, bench: Bench) -> None:
        async with bench.reserved() as reserved:
            for _ in range(2):
                with pytest.raises(asyncpg.DivisionByZeroError):
                    await reserved.fetch_scalar("SELECT (1 / 0)::text")
                with pytest.raises(asyncpg.UndefinedFunctionError):
                    await reserved.fetch_scalar("SELECT nothing()::text")
            assert await reserved.fetch_scalar(QUERY) == "f ä"
            assert await self._open_transactions(bench) == "0"

    async def test_terminated_it_fails_what_waits_for_it(self, bench: Bench) -> None:
        async with bench.reserved() as reserved:
            assert not reserved.is_closed()
            asking = asyncio.ensure_future(reserved.fetch_scalar("SELECT 'x' FROM pg_sleep(60)"))
            await bench.running("pg_sleep(60)")
            for _ in range(2):
                reserved.terminate()
            assert reserved.is_closed()
            assert reserved.in_recovery() is None
            with pytest.raises(asyncpg.PostgresConnectionError):
                await asyncio.wait_for(asking, PATIENCE)
            with pytest.raises(asyncpg.InterfaceError):
                await reserved.fetch_scalar(QUERY)

    async def test_a_lost_one_is_known_to_be_closed(self, bench: Bench) -> None:
        async with bench.reserved() as reserved:
            await bench.end_backends()
            await eventually(reserved.is_closed)
            assert reserved.in_recovery() in (None, False)
            with pytest.raises(asyncpg.InterfaceError):
                await reserved.fetch_scalar(QUERY)

    @pytest.mark.parametrize("own", [False, True], ids=["asyncpg's", "the user's"])
    @pytest.mark.parametrize("again", [False, True], ids=["once", "at every await"])
    async def test_cancelled_wherever_it_leaves_no_socket(
        self, bench: Bench, own: bool, again: bool
    ) -> None:
        async def connect(*args: Any, **kwargs: Any) -> Any:
            return await asyncpg.connect(*args, **kwargs)

        options: dict[str, Any] = {"connect": connect} if own else {}
        for turn in range(100):
            try:
                reserved = await interrupted(
                    bench.adapter.reserve(bench.target(), **options), turn, again=again
                )
            except asyncio.CancelledError:
                await eventually(lambda: bench.sockets() == 0)
            else:
                reserved.terminate()
                assert turn > 3
                break
        else:
            raise AssertionError("it suspends for ever")
        await eventually(lambda: bench.sockets() == 0)

    async def test_refused_it_says_why_and_leaves_no_socket(self, bench: Bench) -> None:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await bench.adapter.reserve(bench.target(), password="wrong")
        await eventually(lambda: bench.sockets() == 0)

    async def test_nothing_of_it_is_left(self, bench: Bench) -> None:
        before = alive(asyncpg.Connection)

        async def use() -> None:
            async with bench.reserved() as reserved:
                await reserved.fetch_scalar(QUERY)

        for _ in range(5):
            await use()
        await eventually(lambda: alive(asyncpg.Connection) == before)

    async def test_a_connection_of_the_pools_tells_of_recovery_and_never_raises(
        self, bench: Bench
    ) -> None:
        tells = bench.adapter.in_recovery
        async with bench.pool() as pool:
            connection = await bench.acquire(pool)
            assert tells(connection) is False
            await bench.release(connection, pool)
            assert tells(connection) is None
            connection = await bench.acquire(pool)
            bench.adapter.terminate_connection(connection)
            assert tells(connection) is None

    async def _open_transactions(self, bench: Bench) -> str:
        return await bench.psql(
            "SELECT count(*) FROM pg_stat_activity"
            f" WHERE application_name = '{bench.name}' AND xact_start IS NOT NULL"
        )


class StandbySuite:
    """Where transactions are serializable by default, which a standby refuses."""

    driver: Driver

    @pytest.fixture
    def cluster(self) -> Iterator[LocalCluster]:
        with LocalCluster(replicas=1) as cluster:
            yield cluster

    @pytest.mark.parametrize("own", [False, True], ids=["asyncpg's", "the user's"])
    @pytest.mark.parametrize("size", [100, 0], ids=["cached", "as for a pooler"])
    async def test_a_standby_answers_and_goes_on_after_its_promotion(
        self, cluster: LocalCluster, own: bool, size: int
    ) -> None:
        async def connect(*args: Any, **kwargs: Any) -> Any:
            return await asyncpg.connect(*args, **kwargs)

        bench = Bench(self.driver, cluster)
        (replica,) = cluster.replicas
        settings = {
            "default_transaction_isolation": "serializable",
            "application_name": bench.name,
        }
        options: dict[str, Any] = {"server_settings": settings, "statement_cache_size": size}
        options |= {"connect": connect} if own else {}
        async with (
            RoundTrips(replica).serving() as counting,
            bench.reserved(counting, **options) as reserved,
        ):
            assert await reserved.fetch_scalar(QUERY) == "t ä"
            assert reserved.in_recovery() is True
            counting.count = 0
            assert await reserved.fetch_scalar(QUERY) == "t ä"
            assert counting.count == 3
            with pytest.raises(asyncpg.DivisionByZeroError):
                await reserved.fetch_scalar("SELECT (1 / 0)::text")
            assert await reserved.fetch_scalar("SHOW transaction_isolation") in (
                "read committed",
                "serializable",
            )

            await asyncio.to_thread(cluster.promote, replica)
            assert await reserved.fetch_scalar(QUERY) == "f ä"
            assert reserved.in_recovery() is False
            await reserved.fetch_scalar(QUERY)
            counting.count = 0
            assert await reserved.fetch_scalar(QUERY) == "f ä"
            assert counting.count == 1
