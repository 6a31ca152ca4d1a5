"""What is particular to asyncpg."""

import asyncio
import gc
import inspect
import os
import signal
import weakref
from collections.abc import Coroutine, Iterator
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import psutil
import pytest
from tests.adapters.on_asyncpg.support import free

from pyscopg2.asyncpg import AsyncpgAdapter, PoolManager
from pyscopg2.core.dsn import parse_dsn
from pyscopg2.testing.cluster import LocalCluster

SOON = 5.0
"""Seconds within which what happens at once has happened, on a busy machine."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=0) as cluster:
        yield cluster


@pytest.mark.parametrize("cancelled", [False, True], ids=["failed", "cancelled"])
async def test_a_pool_whose_creation_ends_halfway_closes_what_it_has_opened(
    cluster: LocalCluster, cancelled: bool
) -> None:
    """Without the garbage collector. The first connections are ready by then."""

    def sockets() -> int:
        found = psutil.Process().net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == cluster.primary.port for each in found)

    opened: list[object] = []
    halfway = asyncio.Event()

    async def init(connection: object) -> None:
        opened.append(connection)
        if len(opened) > 2:
            halfway.set()
            await asyncio.sleep(60 if cancelled else 0)
            raise ZeroDivisionError

    (target,) = parse_dsn(cluster.dsn)
    options: dict[str, Any] = {"min_size": 3, "max_size": 3, "init": init}
    gc.disable()
    try:
        creation = asyncio.ensure_future(AsyncpgAdapter().create_pool(target, **options))
        await asyncio.wait_for(halfway.wait(), SOON)
        if cancelled:
            creation.cancel()
        with pytest.raises(asyncio.CancelledError if cancelled else ZeroDivisionError):
            await asyncio.wait_for(creation, SOON)
        async with asyncio.timeout(SOON):
            while sockets():
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection


class Counting(Connection):
    """With a reset of its own."""

    resets = 0

    async def reset(self, *, timeout: float | None = None) -> None:
        Counting.resets += 1
        await super().reset(timeout=timeout)


async def reset_and_count(connection: Connection) -> None:
    Counting.resets += 1
    await connection.execute(connection.get_reset_query())


@pytest.mark.parametrize(
    "options",
    [{"reset": reset_and_count}, {"connection_class": Counting}],
    ids=["pool's", "connection's"],
)
async def test_a_reset_of_the_users_own_is_done_and_hands_the_slot_on(
    cluster: LocalCluster, options: dict[str, Any]
) -> None:
    options = {"min_size": 1, "max_size": 1, **options}
    async with PoolManager(cluster.dsn, pool_factory_kwargs=options) as manager:
        await manager.ready()
        Counting.resets = 0
        held = await manager.acquire_master()
        await held.execute("SET application_name = 'changed'")
        waiter = asyncio.ensure_future(manager.acquire_master())
        await asyncio.sleep(0)
        await manager.release(held)
        connection = await asyncio.wait_for(waiter, SOON)
        assert Counting.resets == 1
        assert await connection.fetchval("SHOW application_name") == ""
        await manager.release(connection)
        assert Counting.resets == 2


HAS_FLOOR = "init_size" in inspect.signature(asyncpg.create_pool).parameters


@pytest.mark.parametrize(
    ("options", "timers"),
    [
        ({"min_size": 2, "max_size": 2}, not HAS_FLOOR),
        ({"min_size": 1, "max_size": 2}, True),
        ({"min_size": 2, "max_size": 2, "max_inactive_connection_lifetime": 60}, True),
    ],
    ids=["none above the floor", "some above the floor", "the user's own"],
)
async def test_a_timer_for_idle_connections_is_set_where_it_can_close_any(
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    timers: bool,
) -> None:
    (target,) = parse_dsn(cluster.dsn)
    pool = await AsyncpgAdapter().create_pool(target, **options)
    try:
        connection = await pool.acquire()
        loop = asyncio.get_running_loop()
        set_: list[float] = []
        call_later = loop.call_later

        def spy(delay: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            set_.append(delay)
            return call_later(delay, *args, **kwargs)

        monkeypatch.setattr(loop, "call_later", spy)
        await pool.release(connection)
        assert bool(set_) is timers
    finally:
        pool.terminate()


@pytest.mark.parametrize("size", [1, 3])
async def test_a_pool_has_the_users_own_sizes(cluster: LocalCluster, size: int) -> None:
    (target,) = parse_dsn(cluster.dsn)
    adapter = AsyncpgAdapter()
    options: dict[str, Any] = {"min_size": 1, "max_size": size}
    if HAS_FLOOR:
        options["init_size"] = size
    pool = await adapter.create_pool(target, **options)
    try:
        assert pool.get_min_size() == 1
        assert adapter.get_pool_maxsize(pool) == pool.get_max_size() == size
        assert free(pool) == size
        assert pool.get_size() == (size if HAS_FLOOR else 1)
    finally:
        pool.terminate()


def test_the_sizes_are_asyncpgs_own_by_default(cluster: LocalCluster) -> None:
    async def main() -> None:
        (target,) = parse_dsn(cluster.dsn)
        pool = await AsyncpgAdapter().create_pool(target)
        assert (pool.get_min_size(), pool.get_max_size()) == (10, 10)
        pool.terminate()

    asyncio.run(main())


@pytest.mark.parametrize("early", [False, True], ids=["at its end", "early"])
async def test_of_two_returns_in_one_context_each_tells_of_its_own(
    cluster: LocalCluster, early: bool
) -> None:
    """Two tasks share it. The first one's server hangs, and so does its connection's way back."""
    (target,) = parse_dsn(cluster.dsn)
    adapter = AsyncpgAdapter()
    pool = await adapter.create_pool(target, min_size=2, max_size=2)
    loop = asyncio.get_running_loop()
    context = copy_context()
    back: list[str] = []

    def give_back(name: str, *, early: bool) -> asyncio.Task[None]:
        connection = connections[name]
        told = partial(back.append, name)
        releasing: Coroutine[Any, Any, None] = (
            adapter.return_to_pool(connection, pool, told)
            if early
            else adapter.release_to_pool(connection, pool)
        )
        return loop.create_task(releasing, context=context)

    try:
        connections = {name: await pool.acquire() for name in ("hanging", "sound")}
        pid = connections["hanging"].get_server_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            hanging = give_back("hanging", early=True)
            await asyncio.sleep(0)
            await asyncio.wait_for(give_back("sound", early=early), SOON)
            assert back == (["sound"] if early else [])
        finally:
            os.kill(pid, signal.SIGCONT)
        await asyncio.wait_for(hanging, SOON)
        assert back == [*(["sound"] if early else []), "hanging"]
    finally:
        pool.terminate()


@pytest.mark.parametrize("spoilt", ["terminated", "given back"])
async def test_what_cannot_be_returned_early_is_returned(
    cluster: LocalCluster, spoilt: str
) -> None:
    (target,) = parse_dsn(cluster.dsn)
    adapter = AsyncpgAdapter()
    pool = await adapter.create_pool(target, min_size=1, max_size=1)
    back: list[bool] = []
    try:
        connection = await pool.acquire()
        if spoilt == "terminated":
            adapter.terminate_connection(connection)
        else:
            await pool.release(connection)
        await adapter.return_to_pool(connection, pool, lambda: back.append(True))
        assert back == []
        await pool.release(await asyncio.wait_for(pool.acquire(), SOON))
        # Nobody is told of what comes back later.
        assert back == []
    finally:
        pool.terminate()


async def test_a_context_that_lives_on_keeps_no_manager(cluster: LocalCluster) -> None:
    """asyncpg's resets run in copies of the context in which a connection was given back."""
    options = {"min_size": 1, "max_size": 1}
    async with PoolManager(cluster.dsn, pool_factory_kwargs=options) as manager:
        await manager.ready()
        held = await manager.acquire_master()
        waiter = asyncio.ensure_future(manager.acquire_master())
        await asyncio.sleep(0)
        await manager.release(held)
        await manager.release(await asyncio.wait_for(waiter, SOON))
    gone = weakref.ref(manager)
    del manager, held, waiter
    async with asyncio.timeout(SOON):
        while gone() is not None:
            await asyncio.sleep(0.05)
            gc.collect()
