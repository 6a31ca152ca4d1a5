"""Listeners of the user's to the pool's events: for requests alone, and their errors are theirs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import Pool
from tests.adapters.on_sqlalchemy.support import free
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.core.adapter import HookError
from pyscopg2.core.events import Event, PoolOpened
from pyscopg2.sqlalchemy import PoolManager, SqlalchemyAdapter
from pyscopg2.testing.cluster import LocalCluster

from .support import TESTED, all_can_be_taken, end_backends, no_backends, scalar

tenant: ContextVar[str] = ContextVar("tenant")

Listener = Callable[..., None]


@pytest.fixture
def adapter(driver: str) -> SqlalchemyAdapter:
    return SqlalchemyAdapter(driver)


@pytest.fixture(params=["pool_events", "class"])
async def create(
    request: pytest.FixtureRequest, adapter: SqlalchemyAdapter, cluster: LocalCluster
) -> AsyncIterator[Callable[..., Any]]:
    """Creates a pool with these listeners, in one of the ways in which people add them."""
    added: list[tuple[str, Listener]] = []
    pools: list[AsyncEngine] = []

    async def make(options: dict[str, Any] | None = None, **listeners: Listener) -> AsyncEngine:
        options = {"pool_size": 3, "max_overflow": 0, **(options or {})}
        if request.param == "class":
            for name, listener in listeners.items():
                event.listen(Pool, name, listener)
                added.append((name, listener))
        else:
            options["pool_events"] = [(listener, name) for name, listener in listeners.items()]
        pool = await adapter.create_pool(TESTED.target(cluster.primary), **options)
        pools.append(pool)
        return pool

    yield make
    for name, listener in added:
        event.remove(Pool, name, listener)
    for pool in pools:
        assert free(pool) == adapter.get_pool_maxsize(pool)
        await adapter.terminate_pool(pool)
    await eventually(lambda: no_backends(cluster, cluster.primary), "no backend is left")


async def test_a_pool_is_created_without_a_request(
    adapter: SqlalchemyAdapter, create: Callable[..., Any]
) -> None:
    """What is looked up for a request is not there when the monitor opens a pool."""
    heard: list[str] = []

    def connect(*_: object) -> None:
        heard.append("connect")

    def checkout(*_: object) -> None:
        heard.append(tenant.get())

    def checkin(*_: object) -> None:
        heard.append("checkin")

    pool = await create(connect=connect, checkout=checkout, checkin=checkin)
    assert heard == ["connect"], "once for each connection"
    assert free(pool) == 3
    tenant.set("a tenant")
    connection = await adapter.acquire_from_pool(pool)
    assert heard[1:] == ["connect", "a tenant"]
    await adapter.release_to_pool(connection, pool)
    assert heard[3:] == ["checkin"]


async def test_an_error_of_a_checkout_is_its_users(
    adapter: SqlalchemyAdapter, create: Callable[..., Any]
) -> None:
    errors: list[Exception] = [LookupError("no tenant"), TimeoutError("of a cache"), OSError("too")]

    def checkout(*_: object) -> None:
        if errors:
            raise errors[0]

    pool = await create(checkout=checkout)
    while errors:
        with pytest.raises(HookError) as caught:
            await adapter.acquire_from_pool(pool)
        assert caught.value.__cause__ is errors.pop(0)
    await all_can_be_taken(adapter, pool)


async def test_an_error_of_a_checkouts_statement_is_its_users(
    adapter: SqlalchemyAdapter, create: Callable[..., Any]
) -> None:
    def checkout(dbapi_connection: Any, *_: object) -> None:
        dbapi_connection.cursor().execute("SET ROLE nobody_at_all")

    pool = await create(checkout=checkout)
    with pytest.raises(HookError) as caught:
        await adapter.acquire_from_pool(pool)
    cause = caught.value.__cause__
    assert cause is not None
    assert adapter.sqlstate(cause) in ("22023", "42704")


async def test_what_breaks_within_a_checkout_is_the_hosts(
    adapter: SqlalchemyAdapter, create: Callable[..., Any], cluster: LocalCluster
) -> None:
    def checkout(dbapi_connection: Any, *_: object) -> None:
        dbapi_connection.cursor().execute("SELECT pg_terminate_backend(pg_backend_pid())")

    pool = await create(checkout=checkout)
    with pytest.raises(Exception) as caught:
        await adapter.acquire_from_pool(pool)
    assert not isinstance(caught.value, HookError)
    assert isinstance(caught.value, DBAPIError)


async def test_a_checkout_may_refuse_a_connection(
    adapter: SqlalchemyAdapter, create: Callable[..., Any]
) -> None:
    refusals = 0

    def checkout(*_: object) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise DisconnectionError("of another process")

    pool = await create(checkout=checkout)
    connection = await adapter.acquire_from_pool(pool)
    first = await scalar(connection, "SELECT pg_backend_pid()")
    await adapter.release_to_pool(connection, pool)
    refusals = 1
    connection = await adapter.acquire_from_pool(pool)
    assert await scalar(connection, "SELECT pg_backend_pid()") != first
    await adapter.release_to_pool(connection, pool)
    refusals = 1000
    with pytest.raises(HookError) as caught:
        await adapter.acquire_from_pool(pool)
    assert isinstance(caught.value.__cause__, InvalidRequestError)
    assert refusals == 998
    refusals = 0
    await all_can_be_taken(adapter, pool)


async def test_a_connect_that_fails_is_known_when_the_pool_is_created(
    create: Callable[..., Any],
) -> None:
    def connect(*_: object) -> None:
        raise LookupError("no such type")

    with pytest.raises(LookupError, match="no such type"):
        await create(connect=connect)


async def test_an_error_of_a_connect_is_its_users(
    adapter: SqlalchemyAdapter, create: Callable[..., Any]
) -> None:
    error: Exception | None = None

    def connect(*_: object) -> None:
        if error is not None:
            raise error

    pool = await create(connect=connect)
    error = RuntimeError("no such type")
    with pytest.raises(HookError) as caught:
        await adapter.acquire_from_pool(pool)
    assert caught.value.__cause__ is error
    error = ConnectionError("what a host does")
    with pytest.raises(ConnectionError):
        await adapter.acquire_from_pool(pool)
    error = None
    await all_can_be_taken(adapter, pool)


@pytest.mark.parametrize("listens", ["", "asks", "refuses"])
@pytest.mark.parametrize("ping", [False, True], ids=["", "pool_pre_ping"])
async def test_dead_idle_connections_are_gone_through_at_once(
    adapter: SqlalchemyAdapter,
    create: Callable[..., Any],
    cluster: LocalCluster,
    listens: str,
    ping: bool,
) -> None:
    """Also where a listener asks the server, and more are dead than SQLAlchemy tries."""
    refusals = 0

    def checkout(dbapi_connection: Any, *_: object) -> None:
        nonlocal refusals
        if listens == "asks":
            dbapi_connection.cursor().execute("SELECT 1")
        elif refusals:
            # Together with the dead one's: as often as SQLAlchemy tries.
            refusals -= 1
            raise DisconnectionError("not this one")

    pool = await create({"pool_size": 7, "pool_pre_ping": ping}, checkout=checkout)
    for _ in range(2):
        await all_can_be_taken(adapter, pool)
        await end_backends(cluster, cluster.primary)
        refusals = 2 if listens == "refuses" else 0
        async with asyncio.timeout(PATIENCE):
            await all_can_be_taken(adapter, pool)


async def test_acquires_that_share_a_context_are_told_apart(
    adapter: SqlalchemyAdapter, create: Callable[..., Any]
) -> None:
    """A cancelled one cuts off what it has opened itself, and nothing that another one has."""
    waiting: list[Any] = []
    going_on = asyncio.Event()

    async def wait(_: object) -> None:
        await going_on.wait()

    def connect(dbapi_connection: Any, _: object) -> None:
        if creating:
            return
        waiting.append(dbapi_connection)
        dbapi_connection.run_async(wait)

    creating = True
    pool = await create(connect=connect)
    other = await adapter.acquire_from_pool(pool)
    creating = False

    async def acquire() -> AsyncConnection:
        return await adapter.acquire_from_pool(pool)

    loop = asyncio.get_running_loop()
    context = copy_context()
    first, second = (loop.create_task(acquire(), context=context) for _ in range(2))
    await eventually(lambda: len(waiting) == 2, "both are being set up")
    second.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await second
    going_on.set()
    connection = await first
    for each in (connection, other):
        assert await scalar(each, "SELECT 1") == 1
        await adapter.release_to_pool(each, pool)


async def test_what_a_checkout_does_is_over_with_the_acquire(
    adapter: SqlalchemyAdapter, create: Callable[..., Any], cluster: LocalCluster
) -> None:
    """An open transaction of a listener's is rolled back as any other."""

    def checkout(dbapi_connection: Any, *_: object) -> None:
        dbapi_connection.cursor().execute("SELECT 1")

    pool = await create(checkout=checkout)
    connection = await adapter.acquire_from_pool(pool)
    await adapter.release_to_pool(connection, pool)
    assert TESTED.backends(cluster, cluster.primary, "xact_start IS NOT NULL") == 0


async def test_engines_are_made_by_what_sqlalchemy_has_now(
    adapter: SqlalchemyAdapter, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracing wraps `sqlalchemy.ext.asyncio.create_async_engine`, maybe after we were imported."""
    made: list[AsyncEngine] = []

    def traced(*args: Any, **kwargs: Any) -> AsyncEngine:
        made.append(create_async_engine(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr("sqlalchemy.ext.asyncio.create_async_engine", traced)
    pool = await adapter.create_pool(TESTED.target(cluster.primary))
    assert pool in made
    await adapter.terminate_pool(pool)


async def test_listeners_are_attached_to_each_new_pool_by_an_event(
    driver: str, cluster: LocalCluster
) -> None:
    """Those on an engine end with the host's pool; the manager tells of each that it opens."""
    statements: list[str] = []

    def heard(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    def attach(told: Event) -> None:
        if isinstance(told, PoolOpened) and isinstance(told.pool, AsyncEngine):
            event.listen(told.pool.sync_engine, "before_cursor_execute", heard)

    dsn = TESTED.target(cluster.primary).to_uri()
    manager = PoolManager(dsn.replace("postgresql://", f"postgresql+{driver}://"))
    manager.subscribe(attach)
    async with manager:
        for number in range(2):
            async with manager.acquire(timeout=30) as connection:
                await connection.execute(text(f"SELECT {number}"))
            if not number:
                await asyncio.to_thread(cluster.stop, cluster.primary)
                while manager.master_pool_count:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(cluster.start, cluster.primary)
    assert statements == ["SELECT 0", "SELECT 1"]
