"""A second release of one connection, whoever has the same object by then; and what is none."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest
from tests.core.conftest import Bench, Manager, in_use, start, virtual

from pyscopg2.core.checkout.returns import Returns
from pyscopg2.testing.fake import FakeConnection
from pyscopg2.testing.virtual_time import settle

Release = Callable[[Manager, FakeConnection], Any]


def by_release(manager: Manager, connection: FakeConnection) -> Any:
    return manager.release(connection)


def by_release_to_pool(manager: Manager, connection: FakeConnection) -> Any:
    return manager.release_to_pool(connection, manager.pools[0])


class User:
    """A task that takes a connection, and keeps it until it is told to go on."""

    def __init__(self, manager: Manager, how: str) -> None:
        self.has = asyncio.get_running_loop().create_future()
        self.go_on = asyncio.Event()
        self._manager = manager
        self.task = start(getattr(self, f"_{how}")())

    async def _by_await(self) -> None:
        connection = await self._manager.acquire()
        self.has.set_result(connection)
        await self.go_on.wait()
        await self._manager.release(connection)

    async def _in_block(self) -> None:
        async with self._manager.acquire() as connection:
            self.has.set_result(connection)
            await self.go_on.wait()

    async def _of_pool(self) -> None:
        async with self._manager.acquire_from_pool(self._manager.pools[0]) as connection:
            self.has.set_result(connection)
            await self.go_on.wait()

    async def end(self) -> None:
        self.go_on.set()
        await self.task


@pytest.mark.parametrize("release", [by_release, by_release_to_pool])
@pytest.mark.parametrize("waited", [True, False])
@pytest.mark.parametrize("how", ["by_await", "in_block", "of_pool"])
@virtual
async def test_a_second_release_does_not_take_the_connection_of_who_has_it_now(
    how: str, waited: bool, release: Release
) -> None:
    async with Bench(replicas=0, size=1) as bench:
        held = await bench.manager.acquire()
        other = User(bench.manager, how) if waited else None
        await settle()
        await release(bench.manager, held)
        other = other or User(bench.manager, how)
        assert await other.has is held
        for _ in range(2):
            with pytest.raises(ValueError, match="given back already"):
                await release(bench.manager, held)
        assert in_use(bench.manager) == 1
        assert await held.fetch_scalar("select 1") == 1
        await other.end()
        assert in_use(bench.manager) == 0
        with pytest.raises(ValueError, match="given back already"):
            await release(bench.manager, held)


@virtual
async def test_nor_after_it_went_through_many_hands() -> None:
    async with Bench(replicas=0, size=1) as bench:
        held = await bench.manager.acquire()
        await bench.manager.release(held)
        for how in ("by_await", "in_block", "by_await"):
            user = User(bench.manager, how)
            assert await user.has is held
            await user.end()
        user = User(bench.manager, "by_await")
        assert await user.has is held
        with pytest.raises(ValueError):
            await bench.manager.release(held)
        await user.end()


@virtual
async def test_the_same_object_again_and_again_in_one_task() -> None:
    async with Bench(replicas=0, size=1) as bench:
        first = await bench.manager.acquire()
        await bench.manager.release(first)
        for _ in range(3):
            assert await bench.manager.acquire() is first
            await bench.manager.release(first)
            async with bench.manager.acquire() as connection:
                assert connection is first
            # A block may give it back by itself.
            async with bench.manager.acquire() as connection:
                await bench.manager.release(connection)
                assert await bench.manager.acquire() is first
                await bench.manager.release(first)


@virtual
async def test_an_acquire_in_a_task_of_its_own() -> None:
    """As `asyncio.wait_for` makes one on Python 3.11."""
    async with Bench(replicas=0, size=1) as bench:
        for _ in range(3):
            held = await asyncio.wait_for(bench.manager.acquire(), 1)
            await bench.manager.release(held)
            held = await start(bench.manager.acquire())
            await bench.manager.release(held)
            (held,) = await asyncio.gather(bench.manager.acquire())
            await bench.manager.release(held)
            await bench.manager.release(await bench.manager.acquire())


@virtual
async def test_a_task_that_gives_back_for_others() -> None:
    async with Bench(replicas=0, size=1) as bench:
        done: asyncio.Queue[FakeConnection] = asyncio.Queue()
        ended = asyncio.Event()

        async def use() -> None:
            for _ in range(3):
                await done.put(await bench.manager.acquire())
            await ended.wait()

        users = [start(use()) for _ in range(3)]
        for _ in range(9):
            await bench.manager.release(await done.get())
        assert in_use(bench.manager) == 0
        ended.set()
        await asyncio.gather(*users)


@virtual
async def test_a_task_that_takes_for_others() -> None:
    async with Bench(replicas=0, size=1) as bench:

        async def use(connection: FakeConnection) -> None:
            await connection.fetch_scalar("select 1")
            await bench.manager.release(connection)

        for _ in range(3):
            await start(use(await bench.manager.acquire()))
        workers: asyncio.Queue[FakeConnection] = asyncio.Queue()

        async def work() -> None:
            while True:
                await use(await workers.get())

        worker = start(work())
        for _ in range(3):
            await workers.put(await bench.manager.acquire())
        await bench.until(lambda: in_use(bench.manager) == 0, 1)
        worker.cancel()
        await asyncio.wait([worker])


@virtual
async def test_what_its_task_has_left_behind_is_given_back_by_another() -> None:
    async with Bench(replicas=0, size=1) as bench:
        mine = await bench.manager.acquire()
        await bench.manager.release(mine)
        left = await start(bench.manager.acquire())
        assert left is mine
        # By a task that had the same object before.
        await bench.manager.release(left)
        user = User(bench.manager, "by_await")
        held = await user.has
        # By one that had it not, while its user runs still.
        await start(bench.manager.release(held))
        assert in_use(bench.manager) == 0
        user.go_on.set()
        await asyncio.wait([user.task])
        assert isinstance(user.task.exception(), ValueError)


@virtual
async def test_a_child_of_the_block_gives_it_back() -> None:
    async with Bench(replicas=0, size=1) as bench:
        mine = await bench.manager.acquire()
        await bench.manager.release(mine)
        async with bench.manager.acquire() as connection:
            assert connection is mine
            await start(bench.manager.release(connection))
        assert in_use(bench.manager) == 0


@virtual
async def test_a_connection_that_is_registered_is_anybodys() -> None:
    async with Bench(replicas=0, size=1) as bench:
        mine = await bench.manager.acquire()
        await bench.manager.release(mine)
        pool = bench.pool("db1")
        assert await pool.acquire() is mine
        bench.manager.register_connection(mine, pool)
        await bench.manager.release(mine)
        assert in_use(bench.manager) == 0


@virtual
async def test_a_release_that_was_refused_for_its_arguments_may_be_made_again() -> None:
    async with Bench(replicas=0, size=1) as bench:
        held = await bench.manager.acquire()
        with pytest.raises(TypeError):
            await bench.manager.release(held, patience=1)
        await bench.manager.release(held)
        assert in_use(bench.manager) == 0
        with pytest.raises(ValueError):
            await bench.manager.release(held)


@virtual
async def test_nothing_is_kept_alive_and_nothing_grows() -> None:
    async with Bench(replicas=0, size=1) as bench:
        returns = bench.manager._checkouts.returns  # pyright: ignore[reportPrivateUsage]

        async def use() -> FakeConnection:
            held = await bench.manager.acquire()
            await bench.manager.release(held)
            return held

        for _ in range(500):
            await start(use())
        (givers,) = returns.givers.values()
        assert len(givers) < 50
        for _ in range(20):
            held = await bench.manager.acquire()
            held.terminate()
            await bench.manager.release(held)
            del held
        gc.collect()
        assert len(returns.givers) <= 1


@virtual
async def test_connections_that_cannot_be_referred_to_weakly() -> None:
    class Bare:
        __slots__ = ()

    returns = Returns[Bare]()
    bare, task = Bare(), asyncio.current_task()
    assert task is not None
    assert returns.tells
    for _ in range(2):
        returns.begin(bare, ref(task))
        assert not returns.has(bare, task)
        assert not returns.tells


@virtual
async def test_an_acquire_that_is_made_where_no_loop_runs() -> None:
    async with Bench(replicas=0, size=1) as bench:
        await bench.manager.release(await bench.manager.acquire())
        acquire = await asyncio.to_thread(bench.manager.acquire)
        async with acquire as connection:
            await bench.manager.release(connection)
        assert in_use(bench.manager) == 0
