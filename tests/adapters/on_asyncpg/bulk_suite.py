"""COPY and its like end with their connection: as asyncpg does them, they may go on for ever."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tests.adapters.on_asyncpg.support import Bench, Suite
from tests.support.waiting import PATIENCE, SOON, turns

from pyscopg2.testing.fault_proxy import FaultProxy

LINE = "x" * 100_000
"""A few of these fill what a server and its client buffer, where the one does not read."""


MORE_THAN_BUFFERS_HOLD = 500
"""Of these lines."""


class Flow:
    """What the user sends, or takes, as long as the driver asks for it."""

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.begun = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.count = 0

    def _count(self) -> None:
        self.begun.set()
        self.count += 1

    async def _step(self) -> None:
        self._count()
        await asyncio.sleep(self.pause)

    async def stalls(self) -> bool:
        """Until the driver asks for no more, though it could; False where it goes on for ever.

        From CPython 3.12 on, ``writelines`` of a socket's transport may never ask to pause.
        """
        before = 0
        async with asyncio.timeout(PATIENCE):
            while before != self.count < MORE_THAN_BUFFERS_HOLD:
                before = self.count
                await asyncio.sleep(0.05)
                await turns(20)
        return before == self.count

    async def lines(self) -> AsyncIterator[bytes]:
        while True:
            await self._step()
            yield LINE.encode() + b"\n"

    async def records(self) -> AsyncIterator[tuple[str]]:
        while True:
            await self._step()
            yield (LINE,)

    def rows(self) -> Any:
        while True:
            self._count()
            yield (LINE,)

    async def take(self, data: bytes) -> None:
        await self._step()
        await self.may_go_on.wait()


Verb = Callable[[Any, Flow], Awaitable[Any]]

INSERT = "INSERT INTO items VALUES ($1)"

ENDLESS = "SELECT repeat('x', 1000), generate_series(1, 1000000000)"

SENDING: dict[str, Verb] = {
    "copy_to_table": lambda c, flow: c.copy_to_table("items", source=flow.lines()),
    "copy_records_to_table": lambda c, flow: c.copy_records_to_table(
        "items", records=flow.records()
    ),
    "executemany": lambda c, flow: c.executemany(INSERT, flow.rows()),
    "fetchmany": lambda c, flow: c.fetchmany(INSERT + " RETURNING 1", flow.rows()),
}

ALL: dict[str, Verb] = {
    **SENDING,
    "copy_from_query": lambda c, flow: c.copy_from_query(ENDLESS, output=flow.take),
    "copy_from_table": lambda c, flow: c.copy_from_table("large", output=flow.take),
}

each = pytest.mark.parametrize("name", ALL)
each_pace = pytest.mark.parametrize("pause", [0, 0.05], ids=["in a hurry", "with pauses"])


class BulkSuite(Suite):
    @pytest.fixture(autouse=True)
    def tables(self, bench: Bench) -> None:
        bench.cluster.psql(
            bench.node,
            "TRUNCATE items;"
            " CREATE TABLE IF NOT EXISTS large AS"
            " SELECT repeat('x', 1000) FROM generate_series(1, 20000)",
        )

    @each_pace
    @each
    async def test_it_ends_when_its_connection_is_terminated(
        self, bench: Bench, name: str, pause: float
    ) -> None:
        async with bench.pool() as pool:
            connection = await bench.acquire(pool)
            flow = Flow(pause)
            work = asyncio.ensure_future(ALL[name](connection, flow))
            await asyncio.wait_for(flow.begun.wait(), PATIENCE)
            await turns(20)
            bench.adapter.terminate_connection(connection)
            await self._ends(work)
            await bench.release(connection, pool)
            await bench.all_can_be_taken(pool)

    @each_pace
    @each
    async def test_it_ends_when_its_server_has_gone(
        self, bench: Bench, name: str, pause: float
    ) -> None:
        """And without anybody's doing anything about it."""
        async with bench.pool() as pool:
            connection = await bench.acquire(pool)
            flow = Flow(pause)
            if name == "copy_from_table":
                # It has an end, which must not come first.
                flow.may_go_on.clear()
            work = asyncio.ensure_future(ALL[name](connection, flow))
            await asyncio.wait_for(flow.begun.wait(), PATIENCE)
            await bench.end_backends()
            flow.may_go_on.set()
            await self._ends(work)
            await bench.release(connection, pool)
            await bench.all_can_be_taken(pool)

    @pytest.mark.parametrize("name", SENDING)
    async def test_it_ends_when_a_connection_that_is_not_read_is_terminated(
        self, bench: Bench, name: str
    ) -> None:
        async with FaultProxy(bench.node) as proxy, bench.pool(proxy) as pool:
            connection = await bench.acquire(pool)
            flow = Flow(0)
            work = asyncio.ensure_future(SENDING[name](connection, flow))
            await asyncio.wait_for(flow.begun.wait(), PATIENCE)
            proxy.silence()
            await flow.stalls()
            bench.adapter.terminate_connection(connection)
            await self._ends(work)
            await bench.release(connection, pool)
            await bench.all_can_be_taken(pool)

    async def _ends(self, work: asyncio.Future[Any]) -> None:
        done, _ = await asyncio.wait({work}, timeout=SOON)
        try:
            assert done, "it goes on without its connection"
        finally:
            work.cancel()
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            work.result()

    async def test_what_ends_well_has_its_result(self, bench: Bench) -> None:
        async def lines() -> AsyncIterator[bytes]:
            yield b"one\n"
            await asyncio.sleep(0)
            yield b"two\n"

        taken: list[bytes] = []

        async def take(data: bytes) -> None:
            taken.append(data)

        async with bench.pool() as pool:
            connection = await bench.acquire(pool)
            assert await connection.copy_to_table("items", source=lines()) == "COPY 2"
            records = [("three",)]
            assert await connection.copy_records_to_table("items", records=records) == "COPY 1"
            await connection.executemany(INSERT, [("four",), ("five",)])
            more = await connection.fetchmany(INSERT + " RETURNING item", [("six",)])
            assert [row["item"] for row in more] == ["six"]
            assert await connection.copy_from_table("items", output=take) == "COPY 6"
            assert await connection.copy_from_query("TABLE items", output=take) == "COPY 6"
            assert b"".join(taken) == 2 * b"one\ntwo\nthree\nfour\nfive\nsix\n"
            await bench.release(connection, pool)

    @pytest.mark.parametrize("error", [AttributeError("x"), KeyError("x")])
    async def test_an_error_of_the_source_is_its_own(self, bench: Bench, error: Exception) -> None:
        async def lines() -> AsyncIterator[bytes]:
            yield b"one\n"
            raise error

        async with bench.pool() as pool:
            connection = await bench.acquire(pool)
            with pytest.raises(type(error)) as caught:
                await connection.copy_to_table("items", source=lines())
            assert caught.value is error
            await bench.release(connection, pool)
            await bench.all_can_be_taken(pool)

    @pytest.mark.parametrize("name", ["copy_to_table", "copy_from_query"])
    async def test_a_cancellation_stays_one(self, bench: Bench, name: str) -> None:
        async with bench.pool() as pool:
            connection = await bench.acquire(pool)
            flow = Flow(0.01)
            work = asyncio.ensure_future(ALL[name](connection, flow))
            await asyncio.wait_for(flow.begun.wait(), PATIENCE)
            work.cancel()
            await asyncio.wait({work}, timeout=SOON)
            assert work.cancelled()
            await bench.release(connection, pool)
            await bench.all_can_be_taken(pool)

    async def test_a_timeout_of_the_users_stays_one(self, bench: Bench) -> None:
        flow = Flow(0.01)
        async with bench.pool() as pool:
            connection = await bench.acquire(pool)
            with pytest.raises(TimeoutError):
                await connection.copy_to_table("items", source=flow.lines(), timeout=0.1)
            await bench.release(connection, pool)
            await bench.all_can_be_taken(pool)

    async def test_a_class_of_the_users_own_does_the_work(self, bench: Bench) -> None:
        done: list[str] = []

        class Own(bench.connection_class):  # type: ignore[misc,name-defined]
            """With a verb of its own, and one that it changes."""

            async def copy_to_table(self, *args: Any, **kwargs: Any) -> str:
                done.append("copied")
                parent: Any = super()
                return await parent.copy_to_table(*args, **kwargs)  # type: ignore[no-any-return]

            def twice(self, number: int) -> int:
                return 2 * number

        async def init(connection: Any) -> None:
            assert Own in type(connection).__mro__

        async with bench.pool(connection_class=Own, init=init) as pool:
            connection = await bench.acquire(pool)
            assert connection.twice(21) == 42
            assert await connection.copy_to_table("items", source=io.BytesIO(b"one\n")) == "COPY 1"
            await bench.release(connection, pool)
        assert done == ["copied"]

    @pytest.mark.parametrize("name", ["executemany", "fetchmany"])
    async def test_a_prepared_statements_own_is_asyncpgs(self, bench: Bench, name: str) -> None:
        """As the README says: if this fails, asyncpg can do it by now."""
        async with FaultProxy(bench.node) as proxy, bench.pool(proxy) as pool:
            connection = await bench.acquire(pool)
            statement = await connection.prepare(INSERT + " RETURNING 1")
            flow = Flow(0)
            work = asyncio.ensure_future(getattr(statement, name)(flow.rows()))
            await asyncio.wait_for(flow.begun.wait(), PATIENCE)
            proxy.silence()
            stalls = await flow.stalls()
            bench.adapter.terminate_connection(connection)
            await turns(100)
            try:
                # What is never paused fails with its next line.
                assert work.done() is not stalls
            finally:
                work.cancel()
                await asyncio.wait({work})
            with pytest.raises(asyncpg.ConnectionDoesNotExistError):
                work.result()
