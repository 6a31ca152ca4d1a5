"""Whoever is cancelled, wherever, and whatever becomes of the server: no slot is lost."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from tests.adapters.on_asyncpg.support import Bench, Suite, interrupted
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.testing.fault_proxy import FaultProxy


async def _idle(bench: Bench, connection: Any) -> None:
    pass


async def _in_a_transaction(bench: Bench, connection: Any) -> None:
    await connection.execute("BEGIN")


async def _asking(bench: Bench, connection: Any) -> asyncio.Task[Any]:
    query: asyncio.Task[Any] = asyncio.ensure_future(connection.fetchval("SELECT pg_sleep(60)"))
    await bench.running("pg_sleep(60)")
    return query


STATES: dict[str, Callable[[Bench, Any], Awaitable[asyncio.Task[Any] | None]]] = {
    "idle": _idle,
    "in a transaction": _in_a_transaction,
    "with a query that is cancelled": _asking,
}


class GivingBackSuite(Suite):
    @pytest.mark.parametrize("again", [False, True], ids=["once", "at every await"])
    @pytest.mark.parametrize("state", STATES)
    async def test_a_cancelled_release_of_a_connection_that_died_silently_costs_no_slot(
        self, bench: Bench, state: str, again: bool
    ) -> None:
        """asyncpg goes on with the release, and waits for the server, with nobody to end it."""
        async with FaultProxy(bench.node) as proxy, bench.pool(proxy) as pool:
            connection = await bench.acquire(pool)
            query = await STATES[state](bench, connection)
            proxy.silence()
            if query is not None:
                query.cancel()
                await asyncio.wait({query})
            with pytest.raises(asyncio.CancelledError):
                await interrupted(bench.adapter.release_to_pool(connection, pool), 0, again=again)
            await bench.all_can_be_taken(pool)

    @pytest.mark.parametrize("again", [False, True], ids=["once", "at every await"])
    async def test_a_request_that_is_cancelled_at_any_await_costs_no_slot(
        self, bench: Bench, again: bool
    ) -> None:
        """Others are at it, too, and connections have to be opened."""

        async def request() -> None:
            async with manager.acquire_master() as connection, connection.transaction():
                await connection.execute("INSERT INTO items VALUES ('x')")
                await connection.fetchval("SELECT 1")

        async def crowd() -> None:
            while True:
                async with manager.acquire_master() as connection:
                    await connection.fetchval("SELECT 1")

        async with self._manager(bench) as manager:
            size = await self._size(manager)
            others = [asyncio.ensure_future(crowd()) for _ in range(size)]
            try:
                turn = 0
                while await self._is_interrupted(request(), turn, again=again):
                    turn += 1
            finally:
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)
            # BEGIN, two statements, COMMIT, and the release.
            assert turn >= 5
            await self._all_can_be_taken(manager, size)

    async def test_requests_with_a_deadline_cost_no_slot(self, bench: Bench) -> None:
        """As a web framework's scope cancels them: at every await, again and again."""
        dice = random.Random(11)
        gone = 0

        async def requests(count: int) -> None:
            nonlocal gone
            for _ in range(count):
                with anyio.move_on_after(dice.random() * 0.02) as scope:
                    async with manager.acquire_master() as connection:
                        await connection.fetchval("SELECT 1")
                        await connection.execute("INSERT INTO items VALUES ('x')")
                gone += scope.cancelled_caught

        async with self._manager(bench) as manager:
            size = await self._size(manager)
            await asyncio.gather(*(requests(40) for _ in range(30)))
            assert gone > 100
            await self._all_can_be_taken(manager, size)

    async def _is_interrupted(self, request: Awaitable[None], turn: int, *, again: bool) -> bool:
        try:
            await interrupted(request, turn, again=again)
        except asyncio.CancelledError:
            return True
        return False

    def _manager(self, bench: Bench) -> Any:
        options = {"min_size": 1, "max_size": 3}
        return bench.manager_class(
            bench.dsn(), pool_factory_kwargs=options, acquire_timeout=PATIENCE
        )

    async def _size(self, manager: Any) -> int:
        await manager.ready()
        free = manager.get_pool_freesize(await manager.get_pool(read_only=False))
        assert free > 1
        return int(free)

    async def _all_can_be_taken(self, manager: Any, size: int) -> None:
        pool = await manager.get_pool(read_only=False)
        await eventually(lambda: manager.get_pool_freesize(pool) == size)
        taken = [await manager.acquire_master() for _ in range(size)]
        pids = {await connection.fetchval("SELECT pg_backend_pid()") for connection in taken}
        assert len(pids) == size
        assert manager.get_pool_freesize(pool) == 0
        for connection in taken:
            await manager.release(connection)
        assert manager.get_pool_freesize(pool) == size
