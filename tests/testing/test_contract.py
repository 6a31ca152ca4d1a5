"""Each test of the contract fails for an adapter that is wrong in just that."""

import asyncio
import gc
import re
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from pyscopg2.asyncpg import AsyncpgAdapter
from pyscopg2.testing import contract
from pyscopg2.testing.cluster import LocalCluster
from pyscopg2.testing.contract import AdapterContract, Bench, Subject

Right = AsyncpgAdapter
right = Right()


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=0) as cluster:
        cluster.psql(cluster.primary, contract.TABLES)
        yield cluster


# A right one that commits, which asyncpg's own does not


class Committing(AsyncpgAdapter):
    def end_block(self, connection: Any, exc: BaseException | None, /) -> Any:
        return self._end(connection, exc)

    async def _end(self, connection: Any, exc: BaseException | None) -> None:
        if exc is None or not connection.is_closed():
            await connection.execute("COMMIT" if exc is None else "ROLLBACK")


async def execute(connection: Any, sql: str) -> None:
    await connection.execute(sql)


async def execute_in_transaction(connection: Any, sql: str) -> None:
    if not connection.is_in_transaction():
        await connection.execute("BEGIN")
    await connection.execute(sql)


def subject_of(adapter: AsyncpgAdapter, **changes: Any) -> Subject[Any, Any]:
    commits = isinstance(adapter, Committing)
    return Subject(
        adapter,
        execute=execute_in_transaction if commits else execute,
        commits=commits,
        autocommit=not commits,
        **changes,
    )


BLOCKS = [name for name in vars(AdapterContract) if name.startswith("test_") and "block" in name]


@pytest.mark.parametrize("name", BLOCKS)
def test_a_right_adapter_that_commits_keeps_the_contract(cluster: LocalCluster, name: str) -> None:
    bench = Bench(subject_of(Committing()), cluster)
    getattr(AdapterContract[Any, Any](), name)(bench)
    bench.wait_for_no_backends()


# Wrong ones


@dataclass(frozen=True)
class Wrong:
    test: str
    fails: str
    """A pattern for the error's class and message."""
    case: dict[str, Any] = field(default_factory=dict[str, Any])
    """The test's own parameters."""
    base: type[AsyncpgAdapter] = AsyncpgAdapter
    transactions: dict[str, Callable[[Any], Any]] = field(default_factory=dict[str, Any])
    verbs: dict[str, Callable[..., Any]] = field(default_factory=dict[str, Any])

    def __str__(self) -> str:
        return "-".join((self.test, *(f"{k}={v}" for k, v in self.case.items())))


def wrong(
    test: str,
    fails: str,
    case: dict[str, Any] | None = None,
    base: type[AsyncpgAdapter] = AsyncpgAdapter,
    transactions: dict[str, Callable[[Any], Any]] | None = None,
    **verbs: Callable[..., Any],
) -> Wrong:
    return Wrong(f"test_{test}", fails, case or {}, base, transactions or {}, verbs)


async def nothing(self: Any, *_: Any, **__: Any) -> None: ...


def nothing_at_once(self: Any, *_: Any) -> None: ...


async def create_small(self: Any, target: Any, /, **options: Any) -> Any:
    return await right.create_pool(target, **options | {"max_size": options["max_size"] - 1})


async def create_patiently(self: Any, target: Any, /, **options: Any) -> Any:
    try:
        return await right.create_pool(target, **options)
    except OSError as exc:
        raise TimeoutError from exc


async def create_tolerantly(
    self: Any, target: Any, /, no_such_option: int = 0, **options: Any
) -> Any:
    return await right.create_pool(target, **options)


async def create_stubbornly(self: Any, target: Any, /, **options: Any) -> Any:
    return await stubbornly(right.create_pool(target, **options))


async def create_and_leave_one(self: Any, target: Any, /, **options: Any) -> Any:
    forgotten = await asyncpg.connect(target.to_uri())
    pool = await right.create_pool(target, **options)
    await forgotten.close()
    return pool


async def terminate_by_closing(self: Any, pool: Any, /) -> None:
    await pool.close()


async def terminate_once(self: Any, pool: Any, /) -> None:
    if pool.is_closing():
        raise RuntimeError("a second time")
    pool.terminate()


async def stubbornly(work: Any) -> Any:
    """As if nobody had cancelled it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        return await task


async def acquire_stubbornly(self: Any, pool: Any, /, **kwargs: Any) -> Any:
    return await stubbornly(right.acquire_from_pool(pool, **kwargs))


async def acquire_slowly(self: Any, pool: Any, /, **kwargs: Any) -> Any:
    """Takes leave of the server, when it is cancelled."""
    try:
        return await right.acquire_from_pool(pool, **kwargs)
    except asyncio.CancelledError:
        await asyncio.sleep(60)
        raise


async def acquire_and_lose(self: Any, pool: Any, /, **kwargs: Any) -> Any:
    return await asyncio.shield(asyncio.ensure_future(right.acquire_from_pool(pool, **kwargs)))


async def acquire_tolerantly(self: Any, pool: Any, /, **_: Any) -> Any:
    return await right.acquire_from_pool(pool)


async def create_and_note_target(self: Any, target: Any, /, **options: Any) -> Any:
    self.notes["target"] = target
    return await right.create_pool(target, **options)


async def acquire_and_leave_one(self: Any, pool: Any, /, **kwargs: Any) -> Any:
    forgotten = socket.create_connection((self.notes["target"].host, self.notes["target"].port))
    cycle: list[Any] = [forgotten]
    cycle.append(cycle)
    connection = await right.acquire_from_pool(pool, **kwargs)
    forgotten.close()
    return connection


async def note_acquires(self: Any, pool: Any, /, **kwargs: Any) -> Any:
    task = asyncio.current_task()
    acquiring = self.notes.setdefault("acquiring", set())
    acquiring.add(task)
    try:
        return await right.acquire_from_pool(pool, **kwargs)
    finally:
        acquiring.discard(task)


async def release_after_those_who_acquire(self: Any, connection: Any, pool: Any, /) -> None:
    if self.notes["acquiring"]:
        await asyncio.wait(self.notes["acquiring"])
    await pool.release(connection)


async def release_and_keep(self: Any, connection: Any, pool: Any, /) -> None:
    self.notes["kept"] = connection


async def acquire_what_was_kept(self: Any, pool: Any, /) -> Any:
    return self.notes.pop("kept", None) or await right.acquire_from_pool(pool)


async def acquire_one_of_those_kept(self: Any, pool: Any, /) -> Any:
    idle = self.notes.setdefault("idle", [])
    return idle.pop() if idle else await right.acquire_from_pool(pool)


async def release_to_those_kept(self: Any, connection: Any, pool: Any, /) -> None:
    self.notes["idle"].append(connection)


def right_maxsize(self: Any, pool: Any, /) -> int:
    return right.get_pool_maxsize(pool)


async def acquire_and_count(self: Any, pool: Any, /) -> Any:
    self.notes["out"] = self.notes.get("out", 0) + 1
    return await right.acquire_from_pool(pool)


async def release_and_count_what_is_open(self: Any, connection: Any, pool: Any, /) -> None:
    self.notes["out"] -= not right.is_connection_closed(connection)
    await pool.release(connection)


async def close_when_none_is_out(self: Any, pool: Any, /) -> None:
    while self.notes["out"]:
        await asyncio.sleep(0.01)
    await pool.close()


async def release_and_close(self: Any, connection: Any, pool: Any, /) -> None:
    await connection.close()
    await pool.release(connection)


async def release_late_or_never(self: Any, connection: Any, pool: Any, /) -> None:
    await asyncio.sleep(0)
    await pool.release(connection)


async def create_with_asyncpgs_own_reset(self: Any, target: Any, /, **options: Any) -> Any:
    return await asyncpg.create_pool(target.to_uri(), **options)


async def return_too_early(
    self: Any, connection: Any, pool: Any, returned: Callable[[], None], /
) -> None:
    returned()
    await right.release_to_pool(connection, pool)


async def release_and_count(self: Any, connection: Any, pool: Any, /) -> None:
    self.notes["released"] = self.notes.get("released", 0) + 1
    await pool.release(connection)


def freesize_of_what_is_open(self: Any, pool: Any, /) -> Any:
    return pool.get_idle_size()


def sqlstate_of_anything(self: Any, exc: BaseException, /) -> Any:
    return "08000"


def freesize_by_count(self: Any, pool: Any, /) -> Any:
    return pool.get_max_size() - 1 + self.notes.get("released", 0)


def terminate_whoever_is_there(self: Any, connection: Any, /) -> None:
    """As where a file descriptor is taken for that of the connection."""
    if right.is_connection_closed(connection):
        for other in self.notes["acquired"]:
            right.terminate_connection(other)
    right.terminate_connection(connection)


async def acquire_and_remember(self: Any, pool: Any, /, **kwargs: Any) -> Any:
    connection = await right.acquire_from_pool(pool, **kwargs)
    self.notes.setdefault("acquired", []).append(connection)
    return connection


async def fetch_row(self: Any, connection: Any, query: str, /) -> Any:
    return await connection.fetchrow(query)


async def fetch_in_transaction(self: Any, connection: Any, query: str, /) -> Any:
    await connection.execute("BEGIN")
    return await connection.fetchval(query)


async def fetch_and_take_leave(self: Any, connection: Any, query: str, /) -> Any:
    try:
        return await connection.fetchval(query)
    except (asyncio.CancelledError, asyncpg.PostgresConnectionError):
        await asyncio.sleep(60)
        raise


async def fetch_as_aiopg(self: Any, connection: Any, query: str, /) -> Any:
    try:
        return await connection.fetchval(query)
    except asyncpg.QueryCanceledError:
        raise asyncio.CancelledError from None


async def end_quietly(self: Any, connection: Any, exc: BaseException | None, /) -> None:
    with suppress(Exception):
        await Committing().end_block(connection, exc)


async def commit_always(self: Any, connection: Any, exc: BaseException | None, /) -> None:
    await connection.execute("COMMIT")


@asynccontextmanager
async def commit_quietly(connection: Any) -> AsyncGenerator[None]:
    """SQLAlchemy's commit does nothing on a connection that is closed."""
    await connection.execute("BEGIN")
    yield
    if not right.is_connection_closed(connection):
        await connection.execute("COMMIT")


HANGS = "did not end|TimeoutError"
SOCKETS = "sockets are left open"
BACKENDS = "backends are left"
LATE = ({"late": False}, {"late": True})
FROZEN = ({"frozen": False}, {"frozen": True})

WRONG = [
    wrong("a_pool_has_one_place_more_than_the_user_asked_for", "3 == 4", create_pool=create_small),
    wrong(
        "free_and_maximum_size_add_up_under_load",
        r"assert 1 == \(4",
        get_pool_freesize=freesize_of_what_is_open,
    ),
    wrong(
        "a_refused_connect_is_known_when_the_pool_is_created",
        r"isinstance\(TimeoutError",
        create_pool=create_patiently,
    ),
    *(
        wrong("a_server_that_refuses_says_why", "in {None}", case, sqlstate=nothing_at_once)
        for case in (
            {"change": {"password": "wrong-s3cret"}, "sqlstate": "28P01"},
            {"change": {"dbname": "nowhere"}, "sqlstate": "3D000"},
        )
    ),
    wrong(
        "an_unknown_pool_option_is_an_error_at_once",
        "DID NOT RAISE",
        create_pool=create_tolerantly,
    ),
    wrong(
        "a_pool_whose_creation_is_cancelled_leaves_nothing",
        "DID NOT RAISE",
        create_pool=create_stubbornly,
    ),
    *(
        wrong(
            "a_pool_whose_creation_is_cancelled_closes_its_sockets",
            SOCKETS,
            case,
            create_pool=create_and_leave_one,
        )
        for case in LATE
    ),
    wrong("closing_a_pool_ends_its_backends", BACKENDS, close_pool=nothing),
    wrong("terminating_a_pool_waits_for_nobody", HANGS, terminate_pool=terminate_by_closing),
    wrong(
        "terminating_a_pool_of_a_frozen_server_and_again",
        "a second time",
        terminate_pool=terminate_once,
    ),
    wrong(
        "a_pool_can_be_terminated_right_after_its_creation",
        SOCKETS,
        FROZEN[0],
        terminate_pool=nothing,
    ),
    wrong(
        "a_pool_can_be_terminated_right_after_its_creation",
        HANGS,
        FROZEN[1],
        terminate_pool=terminate_by_closing,
    ),
    *(
        wrong(
            "acquires_that_connect_to_a_frozen_server_end_with_their_pool",
            HANGS,
            {"cancelled": cancelled},
            acquire_from_pool=acquire_slowly,
        )
        for cancelled in (False, True)
    ),
    wrong(
        "a_pool_closes_when_all_its_connections_were_terminated",
        HANGS,
        acquire_from_pool=acquire_and_count,
        release_to_pool=release_and_count_what_is_open,
        close_pool=close_when_none_is_out,
    ),
    wrong(
        "what_is_terminated_again_disturbs_nobody",
        "57014",
        acquire_from_pool=acquire_and_remember,
        terminate_connection=terminate_whoever_is_there,
    ),
    wrong(
        "an_acquired_connection_works_and_is_reused",
        "assert 3 <= 2",
        release_to_pool=release_and_close,
    ),
    wrong(
        "an_unknown_acquire_argument_is_an_error_at_once",
        "DID NOT RAISE",
        acquire_from_pool=acquire_tolerantly,
    ),
    wrong("a_cancelled_acquire_leaves_nothing_out", HANGS, acquire_from_pool=acquire_and_lose),
    *(
        wrong(
            "a_cancelled_acquire_never_succeeds",
            "a cancelled acquire succeeded",
            case,
            acquire_from_pool=acquire_stubbornly,
        )
        for case in LATE
    ),
    *(
        wrong(
            "a_cancelled_acquire_closes_its_socket_with_the_pool",
            SOCKETS,
            case,
            create_pool=create_and_note_target,
            acquire_from_pool=acquire_and_leave_one,
        )
        for case in FROZEN
    ),
    wrong(
        "a_burst_with_cancellations_leaves_all_places_free",
        HANGS,
        acquire_from_pool=acquire_and_lose,
    ),
    wrong(
        "giving_back_does_not_wait_for_those_who_connect",
        HANGS,
        acquire_from_pool=note_acquires,
        release_to_pool=release_after_those_who_acquire,
    ),
    wrong(
        "connections_that_broke_while_idle_are_not_handed_out",
        "InterfaceError|connection is closed",
        acquire_from_pool=acquire_one_of_those_kept,
        release_to_pool=release_to_those_kept,
        get_pool_freesize=right_maxsize,
    ),
    wrong(
        "releasing_a_broken_connection_frees_its_place",
        "InterfaceError",
        acquire_from_pool=acquire_what_was_kept,
        release_to_pool=release_and_keep,
    ),
    wrong(
        "releasing_a_terminated_connection_frees_its_place",
        "InterfaceError",
        acquire_from_pool=acquire_what_was_kept,
        release_to_pool=release_and_keep,
    ),
    *(
        wrong(
            "a_cancelled_release_leaves_nothing_out",
            HANGS,
            case,
            release_to_pool=release_late_or_never,
        )
        for case in FROZEN
    ),
    wrong(
        "a_pool_may_end_while_a_cancelled_release_hangs",
        "never retrieved",
        create_pool=create_with_asyncpgs_own_reset,
    ),
    wrong(
        "a_double_release_frees_nothing_twice",
        "assert 4 == 3",
        release_to_pool=release_and_count,
        get_pool_freesize=freesize_by_count,
    ),
    wrong(
        "what_is_said_to_be_back_can_be_taken_at_once",
        "the driver did not have it yet",
        {"broken": False},
        return_to_pool=return_too_early,
    ),
    *(
        wrong(
            "terminating_a_connection_ends_its_pending_query_at_once",
            HANGS,
            case,
            terminate_connection=nothing_at_once,
        )
        for case in FROZEN
    ),
    *(
        wrong(
            "a_query_on_a_frozen_server_ends_when_it_is_cancelled_and_terminated",
            HANGS,
            {"cancelled": cancelled},
            fetch_scalar=fetch_and_take_leave,
        )
        for cancelled in (False, True)
    ),
    wrong(
        "fetch_scalar_gives_the_first_column_of_the_first_row",
        "== 'a b'",
        fetch_scalar=fetch_row,
    ),
    wrong(
        "fetch_scalar_leaves_no_transaction_open",
        "assert 1 == 0",
        fetch_scalar=fetch_in_transaction,
    ),
    wrong(
        "a_query_that_the_server_cancels_is_an_error_and_no_cancellation",
        "as if this task had been cancelled",
        fetch_scalar=fetch_as_aiopg,
    ),
    wrong(
        "sqlstate_of_what_no_server_sent_is_none",
        "is None",
        sqlstate=sqlstate_of_anything,
    ),
    wrong(
        "a_block_that_ends_well_ends_as_the_drivers_own",
        "is True",
        base=Committing,
        end_block=nothing,
    ),
    wrong(
        "a_block_that_raises_keeps_nothing_that_was_not_committed",
        "is False",
        base=Committing,
        end_block=commit_always,
    ),
    wrong(
        "a_block_whose_connection_was_terminated_never_looks_committed",
        "DID NOT RAISE",
        base=Committing,
        end_block=end_quietly,
    ),
    wrong(
        "what_the_server_refuses_at_the_end_of_a_block_is_told",
        "23505",
        base=Committing,
        end_block=end_quietly,
    ),
    *(
        wrong(
            "a_users_own_commit_on_a_terminated_connection_raises",
            "commit_quietly ended as if it had committed",
            {"released": released},
            transactions={"commit_quietly": commit_quietly},
        )
        for released in (False, True)
    ),
]


def test_every_test_of_the_contract_has_its_wrong_adapter() -> None:
    tests = {name for name in vars(AdapterContract) if name.startswith("test_")}
    assert tests == {each.test for each in WRONG}


@pytest.fixture
def swept(cluster: LocalCluster) -> Iterator[None]:
    """Nothing of a wrong adapter is left to the next one."""
    yield
    cluster.thaw(cluster.primary)
    cluster.psql(
        cluster.primary,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )
    gc.collect()


@pytest.mark.filterwarnings("ignore")  # what a wrong adapter leaves behind
@pytest.mark.usefixtures("swept")
@pytest.mark.parametrize("each", WRONG, ids=str)
def test_a_wrong_adapter_fails(
    cluster: LocalCluster, each: Wrong, monkeypatch: pytest.MonkeyPatch
) -> None:
    if each.fails in (HANGS, SOCKETS, BACKENDS):
        monkeypatch.setattr(contract, "SOON", 0.5)  # nobody gains by waiting longer
    adapter = type("Broken", (each.base,), {**each.verbs, "notes": {}})()
    bench = Bench(subject_of(adapter, transactions=each.transactions), cluster)
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        getattr(AdapterContract[Any, Any](), each.test)(bench, **each.case)
    assert re.search(each.fails, f"{caught.typename}: {caught.value}"), caught.value
