"""What must not grow: with those who wait, with time, with changes. Counted, not timed."""

import asyncio
import gc
import tracemalloc

from tests.core.conftest import Bench, now, other_tasks, start, virtual

from pyscopg2.testing.virtual_time import settle

WAITERS = 5_000


async def line(bench: Bench, count: int) -> tuple[list["asyncio.Task[None]"], list[int]]:
    """So many tasks wait for a master; each notes that it was served, and gives back at once."""
    served: list[int] = []

    async def wait(number: int) -> None:
        async with bench.manager.acquire(timeout=600):
            served.append(number)

    tasks = [start(wait(number)) for number in range(count)]
    await settle()
    return tasks, served


@virtual
async def test_a_release_wakes_as_many_as_it_serves() -> None:
    async with Bench(size=3, refresh_delay=3600) as bench:
        held = await bench.drain()
        woken: list[int] = []

        async def wait(number: int) -> None:
            connection = await bench.manager.acquire(timeout=600)
            woken.append(number)
            held.append(connection)

        tasks = [start(wait(number)) for number in range(WAITERS)]
        await settle()
        for count in range(1, 20):
            await bench.manager.release(held.pop(0))
            await settle()
            assert woken == list(range(count))
            # Nobody else has had a step: what they wait for is pending still.
            assert sum(task.done() for task in tasks) == count
        await bench.manager.terminate()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(woken) == 19


@virtual
async def test_thousands_of_waiters_and_an_outage_make_no_storm() -> None:
    async with Bench(replicas=2) as bench:
        for server in bench.network.servers.values():
            server.down()
        tasks, served = await line(bench, WAITERS)
        await asyncio.sleep(1)
        connects = {s.name: s.connects for s in bench.network.servers.values()}
        await asyncio.sleep(20)
        for server in bench.network.servers.values():
            # Five a second, less jitter, however many wait.
            assert 60 <= server.connects - connects[server.name] <= 101
            server.log.clear()
        before = bench["db1"].connects, bench["db1"].queries
        for server in bench.network.servers.values():
            server.up()
        began = now()
        await asyncio.wait(tasks)
        # In order, but for the first ones, for whom connections have to be opened.
        assert sorted(served) == list(range(WAITERS))
        assert all(abs(slot - number) <= 20 for slot, number in enumerate(served))
        # Within a connect's gap a check finds the master; the rest are resets of 1 ms by ten.
        assert now() - began < 0.4 + WAITERS / 10 * 0.001 * 1.2
        assert bench["db1"].connects - before[0] <= 12
        assert bench["db1"].queries - before[1] <= 30
        assert len(other_tasks()) == 3


@virtual
async def test_one_who_waits_costs_no_task_and_few_bytes() -> None:
    async with Bench(size=1, refresh_delay=3600) as bench:
        await bench.drain()
        gc.collect()
        tracemalloc.start()
        try:
            count = len(other_tasks())
            before, _ = tracemalloc.get_traced_memory()
            tasks, _ = await line(bench, 1000)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # Those who wait, and nobody beside them.
        assert len(other_tasks()) == count + 1000
        assert (after - before) / 1000 < 4096
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@virtual
async def test_nothing_grows_with_acquires_and_role_changes() -> None:
    async with Bench(stopwatch_window_size=4) as bench:

        async def acquire(count: int) -> None:
            for _ in range(count):
                async with bench.manager.acquire():
                    pass

        async def change(count: int) -> None:
            for _ in range(count):
                old = bench.network.master
                bench.network.failover()
                await bench.manager.wait_masters_ready(1)
                old.demote(bench.network.master)
                old.up()
                await bench.manager.ready(1, 1)

        async def objects() -> int:
            # Until what was retired has ended.
            await asyncio.sleep(60)
            for server in bench.network.servers.values():
                server.log.clear()
            bench.network.pools[:] = [p for p in bench.network.pools if not p.is_closed]
            gc.collect()
            return len(gc.get_objects())

        await acquire(100)
        await change(5)
        before = await objects()
        await acquire(3000)
        after_acquires = await objects()
        await change(80)
        after_changes = await objects()
        # Less than one for each hundred acquires, or for each change.
        assert after_acquires - before < 30
        assert after_changes - after_acquires < 80
