"""Each scenario is cancelled at its n-th suspension, for every n until it ends by itself.

Whatever the moment: the cancellation comes out, and nothing is left behind.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.core.conftest import (
    Bench,
    Moment,
    cancelled_at,
    in_use,
    other_tasks,
    out,
    start,
    virtual,
)

from pyscopg2.core.errors import PyscopgError
from pyscopg2.testing.fake import FakeQuirks
from pyscopg2.testing.fake_server import FakeError
from pyscopg2.testing.virtual_time import settle

Scenario = Callable[[Bench], Awaitable[Any]]

MOST = 60
"""More suspensions than any of these has."""

_kept: list[asyncio.Task[None]] = []


async def an_acquire_that_connects(bench: Bench) -> None:
    await bench.manager.release(await bench.manager.acquire())


async def all_are_out(bench: Bench) -> None:
    held = await bench.drain()

    async def give_back() -> None:
        for connection in held:
            await bench.manager.release(connection)

    asyncio.get_running_loop().call_later(0.1, lambda: _kept.append(start(give_back())))


async def an_acquire_in_line(bench: Bench) -> None:
    await bench.manager.release(await bench.manager.acquire())


async def an_acquire_for_which_no_host_is_there(bench: Bench) -> None:
    bench["db1"].down()
    await bench.check()
    asyncio.get_running_loop().call_later(0.1, bench["db1"].up)
    await bench.manager.release(await bench.manager.acquire())


async def the_server_is_full(bench: Bench) -> None:
    held = await bench.manager.acquire()
    bench["db1"].refuse_connects = "53300"
    asyncio.get_running_loop().call_later(
        0.5, lambda: _kept.append(start(bench.manager.release(held)))
    )


async def an_acquire_that_fails(bench: Bench) -> None:
    with pytest.raises(PyscopgError):
        await bench.manager.acquire(timeout=0.2)


async def a_block(bench: Bench) -> None:
    async with bench.manager.acquire() as connection:
        await connection.execute("insert")


async def a_block_on_a_frozen_host(bench: Bench) -> None:
    with pytest.raises(FakeError):
        async with bench.manager.acquire() as connection:
            bench["db1"].freeze()
            await connection.execute("insert")


async def a_block_that_hangs_at_its_end(bench: Bench) -> None:
    with pytest.raises(FakeError):
        async with bench.manager.acquire() as connection:
            await connection.execute("insert")
            bench["db1"].freeze()


async def two_blocks_in_each_other(bench: Bench) -> None:
    async with bench.manager.acquire(), bench.manager.acquire_replica() as connection:
        await connection.execute("select 1")


async def one_pool(bench: Bench) -> None:
    pool = await bench.manager.get_pool(True)
    connection = await bench.manager.acquire_from_pool(pool)
    await bench.manager.release_to_pool(connection, pool)


async def ready(bench: Bench) -> None:
    await bench.manager.ready()
    await bench.manager.ready(1, 1)


async def waits(bench: Bench) -> None:
    await bench.manager.wait_all_ready()
    await bench.manager.wait_next_pool_check()


async def get_pools(bench: Bench) -> None:
    await bench.manager.get_pool(False)
    await bench.manager.get_replica_pools()


async def one_is_out_for_a_while(bench: Bench) -> None:
    held = await bench.manager.acquire()
    asyncio.get_running_loop().call_later(
        0.5, lambda: _kept.append(start(bench.manager.release(held)))
    )


async def one_is_out(bench: Bench) -> None:
    await bench.manager.acquire()


async def close(bench: Bench) -> None:
    await bench.manager.close(3)


async def close_with_a_connection_out(bench: Bench) -> None:
    await bench.manager.close(0.5)


async def terminate(bench: Bench) -> None:
    await bench.manager.terminate()


async def enter_and_leave(bench: Bench) -> None:
    async with bench.manager as manager, manager.acquire() as connection:
        await connection.execute("insert")


PREPARED: dict[Scenario, Scenario] = {
    an_acquire_that_connects: one_is_out_for_a_while,
    an_acquire_in_line: all_are_out,
    an_acquire_that_fails: the_server_is_full,
    close: one_is_out_for_a_while,
    close_with_a_connection_out: one_is_out,
    terminate: one_is_out,
}
"""What is done before the scenario, and is not cancelled."""

SCENARIOS: list[Scenario] = [
    an_acquire_that_connects,
    an_acquire_in_line,
    an_acquire_for_which_no_host_is_there,
    an_acquire_that_fails,
    a_block,
    a_block_on_a_frozen_host,
    a_block_that_hangs_at_its_end,
    two_blocks_in_each_other,
    one_pool,
    ready,
    waits,
    get_pools,
    close,
    close_with_a_connection_out,
    terminate,
    enter_and_leave,
]


@pytest.mark.parametrize("moment", ["waiting", "woken"])
@pytest.mark.parametrize("started", [True, False], ids=["ready", "not started"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_cancellation_at_each_await(scenario: Scenario, started: bool, moment: Moment) -> None:
    for suspension in range(1, MOST):
        if not cancel_at(scenario, suspension, moment, started=started):
            gc.collect()
            return
    pytest.fail(f"more than {MOST} suspensions")


def cancel_at(scenario: Scenario, suspension: int, moment: Moment, *, started: bool) -> bool:
    """Whether the scenario had so many suspensions."""
    cancelled: list[bool] = []

    async def body(bench: Bench) -> None:
        await scenario(bench)

    @virtual
    async def main() -> None:
        quirks = FakeQuirks(commits_at_end=True)
        prepare = PREPARED.get(scenario)
        async with Bench(
            size=2, ready=started, quirks=quirks, abandon_timeout=1, fencing=False
        ) as bench:
            if prepare is not None:
                await prepare(bench)
            task = await cancelled_at(body(bench), suspension, moment)
            cancelled.append(task.cancelled())
            if not task.cancelled():
                await task
                assert task.cancelling() == 0, "the cancellation was swallowed"
            bench["db1"].up()
            await asyncio.sleep(3)
            assert (out(bench.manager), in_use(bench.manager)) == ([], 0)
        await settle()
        assert not other_tasks()
        _kept.clear()

    main()
    return cancelled[0]


@virtual
async def test_a_slow_driver_delays_no_cancellation_of_a_block_beyond_the_bounds() -> None:
    async with Bench(quirks=FakeQuirks(cancel_delay=11)) as bench, bench.manager.acquire():
        bench["db1"].freeze()
        acquire = start(bench.manager.acquire(timeout=2))
        await asyncio.sleep(0.1)
        acquire.cancel()
        began = asyncio.get_running_loop().time()
        await asyncio.wait([acquire])
        assert acquire.cancelled()
        assert asyncio.get_running_loop().time() - began <= 2
        bench["db1"].thaw()
