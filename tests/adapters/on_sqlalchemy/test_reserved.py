"""A monitor's connection: apart from the pool, and whatever the user has set up."""

import asyncio
import gc
import itertools
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg.adapt import Loader
from psycopg.rows import dict_row
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool
from tests.support.application import sockets
from tests.support.cancelling import cancelled_at
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.core.adapter import ReservedConnection, Reserves, TellsRecovery
from pyscopg2.sqlalchemy import SqlalchemyAdapter
from pyscopg2.testing.cluster import LocalCluster, Node

from .support import TESTED, ignore, no_backends

ROLE = """\
SELECT pg_catalog.concat_ws(' ', in_recovery, pg_catalog.current_setting('server_version_num'))
FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery OFFSET 0) AS state"""


@contextmanager
def listening(target: Any, name: str, listener: Any) -> Generator[None]:
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


@pytest.fixture
def adapter(driver: str) -> SqlalchemyAdapter:
    return SqlalchemyAdapter(driver)


@pytest.fixture(autouse=True)
async def nothing_is_left(cluster: LocalCluster) -> Any:
    yield
    for node in cluster.nodes:
        await eventually(partial(no_backends, cluster, node), f"none is left on {node!r}")


async def ask(reserved: ReservedConnection, query: str) -> object:
    async with asyncio.timeout(PATIENCE):
        return await reserved.fetch_scalar(query)


def test_it_is_what_the_core_looks_for(adapter: SqlalchemyAdapter) -> None:
    assert isinstance(adapter, Reserves)
    assert isinstance(adapter, TellsRecovery)


async def test_what_it_says_is_as_the_server_wrote_it(
    adapter: SqlalchemyAdapter, cluster: LocalCluster
) -> None:
    reserved = await adapter.reserve(TESTED.target(cluster.primary))
    try:
        assert await ask(reserved, "SELECT 'a b', 2") == "a b"
        assert await ask(reserved, "SELECT 1 + 1") == "2"
        assert await ask(reserved, "SELECT true") == "t"
        assert await ask(reserved, "SELECT NULL") is None
        assert await ask(reserved, "SELECT ''") == ""
        assert await ask(reserved, "SELECT 1 WHERE false") is None
        assert await ask(reserved, "SELECT generate_series(7, 9)") == "7"
        assert (
            await ask(reserved, r"SELECT E'tab\t back\\ line\n é \\N'")
            == "tab\t back\\ line\n é \\N"
        )
        assert await ask(reserved, "SELECT concat_ws('%', 1, 2)") == "1%2"
        assert await ask(reserved, "SHOW transaction_read_only") == "off"
        with pytest.raises(Exception) as caught:
            await ask(reserved, "SELECT no_such_function()")
        assert adapter.sqlstate(caught.value) == "42883"
        assert TESTED.backends(cluster, cluster.primary, "xact_start IS NOT NULL") == 0
        assert await ask(reserved, "SELECT 1") == "1"
    finally:
        reserved.terminate()
        reserved.terminate()
    assert reserved.is_closed()
    with pytest.raises((asyncpg.InterfaceError, psycopg.OperationalError)):
        await ask(reserved, "SELECT 1")


names = itertools.count()

BEHIND_A_PGBOUNCER: dict[str, list[dict[str, Any]]] = {
    "asyncpg": [
        {"prepared_statement_name_func": lambda: f"mine-{next(names)}"},
        {"prepared_statement_cache_size": 0},
        {"statement_cache_size": 0},
    ],
    "psycopg": [{}, {"prepare_threshold": None}, {"prepare_threshold": 0}],
}


@pytest.mark.parametrize("number", range(3))
async def test_behind_a_pgbouncer_it_prepares_nothing_that_has_a_name(
    adapter: SqlalchemyAdapter, driver: str, cluster: LocalCluster, number: int
) -> None:
    """The next query may meet another server, and there somebody else's statement of that name."""
    own = BEHIND_A_PGBOUNCER[driver][number]
    reserved = await adapter.reserve(TESTED.target(cluster.primary), connect_args=own)
    try:
        for _ in range(12):
            assert await ask(reserved, ROLE)
            assert await ask(reserved, "SHOW transaction_read_only") == "off"
        named = "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"
        assert await ask(reserved, named) == "0"
    finally:
        reserved.terminate()


SETTINGS = {
    "isolation": "default_transaction_isolation=serializable",
    "read only": "default_transaction_read_only=on",
    "deferrable": "default_transaction_deferrable=on",
    "encoding": "client_encoding=sql_ascii",
    "search_path": "search_path=shadows",
    "dates": "DateStyle=German",
}


@pytest.fixture(scope="session")
def shadows(cluster: LocalCluster) -> None:
    """Functions that hide the system's where the search path says so."""
    cluster.psql(
        cluster.primary,
        "CREATE SCHEMA shadows; CREATE FUNCTION shadows.set_config(text, text, bool) RETURNS text"
        " LANGUAGE sql AS $$ SELECT 'shadow' $$; CREATE FUNCTION shadows.current_setting(text)"
        " RETURNS text LANGUAGE sql AS $$ SELECT 'shadow' $$",
    )
    cluster.wait_streaming()


@pytest.mark.parametrize("in_recovery", [False, True], ids=["primary", "standby"])
@pytest.mark.parametrize("setting", SETTINGS)
async def test_what_it_says_does_not_hang_on_the_sessions_settings(
    adapter: SqlalchemyAdapter,
    cluster: LocalCluster,
    shadows: None,
    setting: str,
    in_recovery: bool,
) -> None:
    node = cluster.replicas[0] if in_recovery else cluster.primary
    params = f"&options=-c%20{SETTINGS[setting].replace('=', '%3D')}"
    reserved = await adapter.reserve(TESTED.target(node, params))
    read_only = in_recovery or setting == "read only"
    try:
        for _ in range(3):
            assert str(await ask(reserved, ROLE)).split()[0] == ("t" if in_recovery else "f")
            shown = await ask(reserved, "SHOW transaction_read_only")
            assert shown == ("on" if read_only else "off")
        assert reserved.in_recovery() is in_recovery
    finally:
        reserved.terminate()
    assert reserved.in_recovery() in (None, in_recovery)


async def test_a_statement_timeout_is_for_users_statements(
    adapter: SqlalchemyAdapter, cluster: LocalCluster
) -> None:
    params = "&options=-c%20statement_timeout%3D60ms"
    reserved = await adapter.reserve(TESTED.target(cluster.primary, params))
    try:
        for _ in range(2):
            assert await ask(reserved, "SELECT 'slept' FROM pg_sleep(0.2)") == "slept"
        assert await ask(reserved, "SHOW statement_timeout") in ("0", "60ms")
        assert TESTED.backends(cluster, cluster.primary, "xact_start IS NOT NULL") == 0
    finally:
        reserved.terminate()


async def test_a_query_that_an_administrator_cancels_fails(
    adapter: SqlalchemyAdapter, cluster: LocalCluster
) -> None:
    reserved = await adapter.reserve(TESTED.target(cluster.primary))
    try:
        asking = asyncio.ensure_future(ask(reserved, "SELECT pg_sleep(60)"))
        asleep = "wait_event = 'PgSleep'"
        await eventually(lambda: TESTED.backends(cluster, cluster.primary, asleep), "it sleeps")
        cluster.psql(
            cluster.primary, f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {asleep}"
        )
        with pytest.raises(Exception) as caught:
            await asking
        assert adapter.sqlstate(caught.value) == "57014"
        assert await ask(reserved, "SELECT 1") == "1"
    finally:
        reserved.terminate()


class LoaderThatFails(Loader):
    def load(self, data: object) -> object:
        raise LookupError("the user's loader")


async def spoil(connection: Any) -> None:
    await connection.set_type_codec("text", schema="pg_catalog", encoder=str, decoder=ignore)


@pytest.mark.parametrize("on_the_class", [False, True], ids=["pool_events", "class"])
async def test_the_pools_listeners_hear_nothing_of_it(
    adapter: SqlalchemyAdapter, driver: str, cluster: LocalCluster, on_the_class: bool
) -> None:
    heard: list[str] = []

    def hook(name: str) -> Any:
        def listen(*_: object) -> None:
            heard.append(name)
            raise LookupError(f"no request's context: {name}")

        return listen

    names = ["connect", "first_connect", "checkout", "checkin", "reset", "close", "invalidate"]
    hooks = {name: hook(name) for name in names}
    events = [] if on_the_class else [(listener, name) for name, listener in hooks.items()]
    if on_the_class:
        for name, listener in hooks.items():
            event.listen(Pool, name, listener)
    try:
        reserved = await adapter.reserve(
            TESTED.target(cluster.primary),
            pool_events=events,
            echo=True,
            echo_pool="debug",
            execution_options={"postgresql_readonly": True},
            isolation_level="SERIALIZABLE",
            pool_pre_ping=True,
            json_deserializer=ignore,
        )
        assert await ask(reserved, ROLE)
        reserved.terminate()
    finally:
        if on_the_class:
            for name, listener in hooks.items():
                event.remove(Pool, name, listener)
    assert heard == []


@pytest.mark.parametrize("own_creator", [False, True], ids=["connect_args", "async_creator"])
async def test_users_types_and_rows_are_for_users_queries(
    adapter: SqlalchemyAdapter, driver: str, cluster: LocalCluster, own_creator: bool
) -> None:
    target = TESTED.target(cluster.primary)
    before = psycopg.adapters.get_loader(25, psycopg.pq.Format.TEXT)
    assert before is not None
    options: dict[str, Any]
    if driver == "psycopg":
        psycopg.adapters.register_loader("text", LoaderThatFails)
        own: dict[str, Any] = {"row_factory": dict_row, "client_encoding": "sql_ascii"}
        everything: dict[str, Any] = {**target.to_kwargs(), **own}

        async def connect() -> Any:
            connection = await psycopg.AsyncConnection.connect(**everything)
            await connection.execute("SELECT 1")  # leaves a transaction open
            return connection

    else:
        own = {"record_class": RecordThatFails, "connection_class": ConnectionThatFails}

        async def connect() -> Any:
            connection: Any = await asyncpg.connect(dsn_of(cluster.primary), **own)
            await spoil(connection)
            return connection

    options = {"async_creator": connect} if own_creator else {"connect_args": own}
    try:
        reserved = await adapter.reserve(target, **options)
        try:
            for _ in range(8):
                assert str(await ask(reserved, ROLE)).startswith("f ")
                assert await ask(reserved, "SHOW transaction_read_only") == "off"
            assert TESTED.backends(cluster, cluster.primary, "xact_start IS NOT NULL") == 0
        finally:
            reserved.terminate()
    finally:
        psycopg.adapters.register_loader("text", before)


def dsn_of(node: Node) -> str:
    return f"{node.dsn}?application_name=pyscopg2-test"


class RecordThatFails(asyncpg.Record):
    def __getitem__(self, key: Any) -> Any:
        raise LookupError("the user's record")


class ConnectionThatFails(asyncpg.Connection):
    async def fetchval(self, *_: Any, **__: Any) -> Any:
        raise LookupError("the user's connection")


async def test_it_is_opened_as_the_pools_connections_are(
    adapter: SqlalchemyAdapter, driver: str, cluster: LocalCluster
) -> None:
    """People hand tokens to "do_connect", which know the pool's entry, too."""
    target = TESTED.target(cluster.primary)
    heard: list[object] = []

    def give_token(_d: object, entry: Any, _a: object, params: dict[str, Any]) -> None:
        heard.append(entry.info.get("token"))
        entry.info["token"] = params["password"] = cluster.password

    own = {"connect_args": {"password": "expired"}}
    with pytest.raises(Exception) as caught:
        await adapter.reserve(target, **own)
    assert adapter.sqlstate(caught.value) == "28P01"
    with listening(Engine, "do_connect", give_token):
        reserved = await adapter.reserve(target, **own)
    assert await ask(reserved, "SHOW application_name") == "pyscopg2-test"
    reserved.terminate()
    assert heard == [None]


async def test_a_creator_of_the_users_makes_it(
    adapter: SqlalchemyAdapter, driver: str, cluster: LocalCluster
) -> None:
    target = TESTED.target(cluster.primary)
    engine = (await adapter.create_pool(target)).sync_engine
    module: Any = engine.dialect.loaded_dbapi
    params: dict[str, Any] = (
        {**target.to_kwargs()} if driver == "psycopg" else {"dsn": dsn_of(cluster.primary)}
    )
    entries: list[object] = []

    def creator(entry: object) -> Any:
        entries.append(entry)
        return module.connect(**params)

    for options in ({"creator": creator}, {"creator": lambda: module.connect(**params)}):
        reserved = await adapter.reserve(target, **options)
        assert await ask(reserved, ROLE)
        reserved.terminate()
        pool = await adapter.create_pool(target, **options)
        connection = await adapter.acquire_from_pool(pool)
        assert adapter.in_recovery(connection) is False
        await adapter.release_to_pool(connection, pool)
        await adapter.close_pool(pool)
    assert len(entries) == 3
    assert None not in entries


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"no_such_option": 1}, TypeError),
        ({"pool_size": -1}, ValueError),
        ({"connect_args": {"host": "elsewhere"}}, TypeError),
        ({"connect_args": {"no_such_argument": 1}}, Exception),
    ],
    ids=str,
)
async def test_wrong_options_are_told_as_by_create_pool(
    adapter: SqlalchemyAdapter, cluster: LocalCluster, options: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await adapter.reserve(TESTED.target(cluster.primary), **options)


async def test_a_refused_connect_raises_the_drivers_own_error(
    adapter: SqlalchemyAdapter, driver: str, cluster: LocalCluster
) -> None:
    target = TESTED.target(cluster.primary, "&dbname=nowhere")
    with pytest.raises((asyncpg.PostgresError, psycopg.Error)) as caught:
        await adapter.reserve(target)
    assert adapter.sqlstate(caught.value) == "3D000"
    assert type(caught.value).__module__.startswith(driver)


@pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
async def test_a_cancelled_reserve_closes_its_socket(
    adapter: SqlalchemyAdapter, cluster: LocalCluster, again: bool
) -> None:
    """Wherever it is cancelled, and without the garbage collector."""
    node = cluster.primary
    await eventually(lambda: not sockets(node), "nothing is open before")
    asyncio.get_running_loop().set_exception_handler(ignore)
    gc.collect()
    gc.disable()
    try:
        for turn in itertools.count():
            reserving = asyncio.ensure_future(
                cancelled_at(adapter.reserve(TESTED.target(node)), turn, again=again)
            )
            await asyncio.wait({reserving}, timeout=PATIENCE)
            assert reserving.done()
            if not reserving.cancelled():
                assert not reserving.cancelling(), "a cancellation was lost"
                reserving.result().terminate()
                break
            del reserving
            await eventually(lambda: not sockets(node), "its socket is closed")
    finally:
        gc.enable()


@pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
async def test_a_cancelled_question_cuts_it_off_first(
    adapter: SqlalchemyAdapter, cluster: LocalCluster, frozen: bool, again: bool
) -> None:
    reserved = await adapter.reserve(TESTED.target(cluster.primary))
    if frozen:
        cluster.freeze(cluster.primary)
    try:
        asking = asyncio.ensure_future(
            cancelled_at(reserved.fetch_scalar("SELECT pg_sleep(60)"), 0, again=again)
        )
        await asyncio.wait({asking}, timeout=PATIENCE)
        assert asking.cancelled()
        assert reserved.is_closed()
    finally:
        cluster.thaw(cluster.primary)
        reserved.terminate()
    cluster.psql(
        cluster.primary,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
    )


async def test_a_question_fails_when_it_is_terminated(
    adapter: SqlalchemyAdapter, cluster: LocalCluster
) -> None:
    reserved = await adapter.reserve(TESTED.target(cluster.primary))
    asking = asyncio.ensure_future(reserved.fetch_scalar("SELECT pg_sleep(60)"))
    asleep = "wait_event = 'PgSleep'"
    await eventually(lambda: TESTED.backends(cluster, cluster.primary, asleep), "it sleeps")
    reserved.terminate()
    await asyncio.wait({asking}, timeout=PATIENCE)
    assert isinstance(asking.exception(), Exception)
    cluster.psql(
        cluster.primary,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {asleep}",
    )


async def test_it_is_known_to_be_closed_when_the_server_hung_up(
    adapter: SqlalchemyAdapter, cluster: LocalCluster
) -> None:
    reserved = await adapter.reserve(TESTED.target(cluster.primary))
    pid = await ask(reserved, "SELECT pg_backend_pid()")
    assert not reserved.is_closed()
    cluster.psql(cluster.primary, f"SELECT pg_terminate_backend({pid}, 5000)")
    await eventually(reserved.is_closed, "it is known to be closed")
    unheard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: unheard.append(str(context))
    )
    with pytest.raises((asyncpg.InterfaceError, psycopg.OperationalError)):
        await ask(reserved, "SELECT 1")
    reserved.terminate()
    del reserved
    gc.collect()
    assert unheard == []


async def test_it_asks_without_a_word_of_the_servers(
    adapter: SqlalchemyAdapter, driver: str, cluster: LocalCluster
) -> None:
    """No warning, of a SET outside of a transaction for one, reaches a log."""
    said: list[str] = []
    target: Any = None

    def hear(_: object, message: object) -> None:
        said.append(str(message))

    async def connect() -> Any:
        if driver == "psycopg":
            everything: dict[str, Any] = {**target.to_kwargs()}
            psycopg_connection = await psycopg.AsyncConnection.connect(**everything)
            psycopg_connection.add_notice_handler(
                lambda diag: said.append(str(diag.message_primary))
            )
            return psycopg_connection
        connection: Any = await asyncpg.connect(
            dsn_of(node), server_settings={"default_transaction_isolation": "serializable"}
        )
        connection.add_log_listener(hear)
        return connection

    for node in cluster.nodes:
        target = TESTED.target(node, "&options=-c%20default_transaction_isolation%3Dserializable")
        reserved = await adapter.reserve(target, async_creator=connect)
        for _ in range(2):
            assert await ask(reserved, ROLE)
            assert await ask(reserved, "SHOW transaction_read_only")
        reserved.terminate()
    assert said == []


async def test_the_adapter_tells_of_a_recovery(
    adapter: SqlalchemyAdapter, cluster: LocalCluster
) -> None:
    for node, in_recovery in ((cluster.primary, False), (cluster.replicas[0], True)):
        pool = await adapter.create_pool(TESTED.target(node))
        connection = await adapter.acquire_from_pool(pool)
        assert adapter.in_recovery(connection) is in_recovery
        adapter.terminate_connection(connection)
        assert adapter.in_recovery(connection) is None
        await adapter.release_to_pool(connection, pool)
        assert adapter.in_recovery(connection) is None
        await adapter.close_pool(pool)
