"""The part of `pyscopg2.testing.contract` on cancellation: at each await, once and again.

``task.cancel()`` and `asyncio.timeout` cancel a task once. A cancel scope of anyio's, which web
frameworks put around each request, does so at every await until its block has ended: also in the
clean-up that the first cancellation began. Whatever is interrupted, and whoever else comes and goes
meanwhile, no slot of the pool is lost, and the scope ends what it began.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeAlias

import anyio

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.testing.bench import Bench
from pyscopg2.testing.contracts.interrupted import ENOUGH, Interrupted, each_moment, each_way
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("CancellationContract",)

SHIFTS = range(10)
"""Turns of the event loop between what happens to others and the verb that is interrupted."""


class CancellationContract(Generic[PoolT, ConnT]):
    """A part of `AdapterContract`."""

    @each_moment
    @each_way
    @in_own_loop
    async def test_an_interrupted_acquire_costs_no_slot(
        self, bench: Bench[PoolT, ConnT], again: bool, late: bool
    ) -> None:
        """Others wait for connects with it, and one gives a connection back just then."""
        await at_each_await(bench, interrupt_acquire, again, late)

    @each_moment
    @each_way
    @in_own_loop
    async def test_an_interrupted_release_costs_no_slot(
        self, bench: Bench[PoolT, ConnT], again: bool, late: bool
    ) -> None:
        """Others wait for a connection; some are cancelled themselves."""
        await at_each_await(bench, interrupt_release, again, late)

    @each_moment
    @each_way
    @in_own_loop
    async def test_an_interrupted_release_in_a_transaction_costs_no_slot(
        self, bench: Bench[PoolT, ConnT], again: bool, late: bool
    ) -> None:
        await at_each_await(bench, interrupt_release_in_transaction, again, late)

    @each_moment
    @each_way
    @in_own_loop
    async def test_an_interrupted_end_of_a_block_costs_no_slot(
        self, bench: Bench[PoolT, ConnT], again: bool, late: bool
    ) -> None:
        """The release, which follows in any case, is interrupted with it."""
        await at_each_await(bench, interrupt_end_of_block, again, late)

    @each_moment
    @in_own_loop
    async def test_what_a_cancel_scope_cancelled_ends_with_it(
        self, bench: Bench[PoolT, ConnT], late: bool
    ) -> None:
        """It knows its own cancellation by the exception: the one that it raised, or one with that
        among its contexts. Another one goes on, and ends the user's task."""
        for interrupt in (
            interrupt_acquire,
            interrupt_release,
            interrupt_release_in_transaction,
            interrupt_end_of_block,
        ):
            for turn in range(ENOUGH):
                interrupted = await interrupt(bench, turn, 0, again=True, late=late)
                assert not interrupted.escaped, (
                    "the cancellation left the scope that it came from: what was raised is not"
                    f" the CancelledError that came ({interrupt.__name__}: {turn})"
                )
                if not interrupted.happened:
                    break


class Crowd(Generic[PoolT, ConnT]):
    """A pool, two connections of it, and other tasks that wait for one.

    All together are no more than it has slots: the core sees to that; but the driver has yet to
    open what the others get.
    """

    def __init__(
        self, bench: Bench[PoolT, ConnT], pool: PoolT, first: ConnT, second: ConnT, others: int
    ) -> None:
        self.bench = bench
        self.pool = pool
        self.first = first
        self.second = second
        self._first: asyncio.Task[None] | None = None
        self._others = [asyncio.ensure_future(self._use()) for _ in range(others)]

    async def _use(self) -> None:
        connection = await self.bench.acquire(self.pool)
        with anyio.CancelScope(shield=True):
            await self.bench.release(connection, self.pool)

    async def make_way(self, shift: int) -> None:
        """Some of the others are cancelled; ``shift // 2`` turns later, where it is odd, somebody
        gives a connection back. Whoever does the like in this very turn finds them at work."""
        # All but the last one: the first waiter of the driver's queue is among them.
        for task in self._others[:-1]:
            task.cancel()
        await turns(shift // 2)
        if shift % 2:
            self.start_release_of_first()

    def start_release_of_first(self) -> asyncio.Task[None]:
        if self._first is None:
            releasing = self.bench.release(self.first, self.pool)
            self._first = asyncio.create_task(releasing)
        return self._first

    def release_second(self) -> Coroutine[Any, Any, None]:
        return self.bench.release(self.second, self.pool)

    async def release_first(self, after: asyncio.Task[Any]) -> None:
        """Unless that has been done before."""
        await self.bench.end(after)
        await self.start_release_of_first()

    async def go(self) -> None:
        """Until all of the others are gone."""
        await self.bench.end(*self._others)
        for task in self._others:
            if not task.cancelled():
                task.result()


@asynccontextmanager
async def crowd(
    bench: Bench[PoolT, ConnT], slots_left: int, *, insert: bool = False
) -> AsyncGenerator[Crowd[PoolT, ConnT]]:
    """A crowd, of which the second one may have written something. In the end all of the slots can
    be taken, and no connection is out."""
    async with bench.pool(1, 3) as pool:
        first, second = [await bench.acquire(pool) for _ in range(2)]
        if insert:
            await bench.insert(second)
        size = bench.size_of(pool)
        crowd = Crowd(bench, pool, first, second, others=size - 2 - slots_left)
        await turns(3)
        yield crowd
        await crowd.go()
        await bench.all_slots_are_free(pool)


Interrupt: TypeAlias = Callable[..., Coroutine[Any, Any, Interrupted]]


async def interrupt_acquire(
    bench: Bench[PoolT, ConnT], turn: int, shift: int, *, again: bool, late: bool
) -> Interrupted:
    async with crowd(bench, slots_left=1) as others:
        acquiring = Interrupted(bench.acquire(others.pool), turn, again, late)
        await turns(shift)
        giving_back = others.start_release_of_first()
        await bench.end(acquiring.task, giving_back)
        giving_back.result()
        await bench.release(others.second, others.pool)
        if not acquiring.task.cancelled():
            await bench.release(acquiring.task.result(), others.pool)
    return acquiring


async def interrupt_release(
    bench: Bench[PoolT, ConnT], turn: int, shift: int, *, again: bool, late: bool
) -> Interrupted:
    async with crowd(bench, slots_left=0) as others:
        await others.make_way(shift)
        giving_back = Interrupted(others.release_second(), turn, again, late)
        await others.release_first(giving_back.task)
    return giving_back


async def interrupt_release_in_transaction(
    bench: Bench[PoolT, ConnT], turn: int, shift: int, *, again: bool, late: bool
) -> Interrupted:
    async with crowd(bench, slots_left=0, insert=True) as others:
        await others.make_way(shift)
        giving_back = Interrupted(others.release_second(), turn, again, late)
        await others.release_first(giving_back.task)
    return giving_back


async def interrupt_end_of_block(
    bench: Bench[PoolT, ConnT], turn: int, shift: int, *, again: bool, late: bool
) -> Interrupted:
    async with crowd(bench, slots_left=0, insert=True) as others:

        async def end() -> None:
            try:
                await bench.end_block(others.second, None)
            finally:
                try:
                    with anyio.CancelScope(shield=True):
                        await others.make_way(shift)
                finally:
                    await others.release_second()

        ending = Interrupted(end(), turn, again, late)
        await others.release_first(ending.task)
    return ending


async def at_each_await(
    bench: Bench[PoolT, ConnT], interrupt: Interrupt, again: bool, late: bool
) -> None:
    """Of what is interrupted in turn, with each shift."""
    for shift in SHIFTS:
        for turn in itertools.count():
            assert turn < ENOUGH, f"{interrupt.__name__}: it suspends for ever"
            interrupted = await interrupt(bench, turn, shift, again=again, late=late)
            if not interrupted.happened:
                break


async def turns(count: int) -> None:
    """Of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)
