"""Slots, and the line of those who wait for one."""

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import pytest
from tests.core.conftest import Bench, break_one, demote, in_use, lose, now, out, start, virtual

from pyscopg2.balancer_policy import RoundRobinBalancerPolicy
from pyscopg2.core.checkout.connect_trial import RETRY_GAP
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.testing.fake import FakeAdapter, FakeConnection, FakePool, FakeQuirks
from pyscopg2.testing.fake_server import FULL
from pyscopg2.testing.virtual_time import settle


class Queue:
    """Those who wait on a bench, and in which order they were served."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[FakeConnection]] = {}

    async def join(self, name: str, *arguments: Any, **settings: Any) -> None:
        async def wait() -> FakeConnection:
            connection = await self.bench.manager.acquire(*arguments, **settings)
            self.served.append(name)
            return connection

        self.tasks[name] = start(wait())
        await settle()

    async def give_back(self, connection: FakeConnection) -> None:
        await self.bench.manager.release(connection)
        await settle()

    async def end(self) -> None:
        """Everybody gives back what they got."""
        for task in self.tasks.values():
            await self.bench.manager.release(await task)
        assert in_use(self.bench.manager) == 0


@virtual
async def test_never_more_than_there_are() -> None:
    async with Bench(size=3) as bench:
        await bench.drain()
        assert in_use(bench.manager) == 3
        began = now()
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire(timeout=2)
        assert now() == began + 2
        assert len(bench.pool("db1").out) == 3
        assert bench["db1"].backends == 4


@virtual
async def test_first_come_first_served() -> None:
    async with Bench(size=2) as bench:
        held, queue = await bench.drain(), Queue(bench)
        for name in "abcd":
            await queue.join(name)
        for connection in held:
            await queue.give_back(connection)
        assert queue.served == ["a", "b"]
        await bench.manager.release(await queue.tasks.pop("a"))
        await queue.end()
        assert queue.served == ["a", "b", "c", "d"]


@virtual
async def test_across_distinct_requests_too() -> None:
    async with Bench(replicas=0, size=1) as bench:
        (held,), queue = await bench.drain(), Queue(bench)
        await queue.join("read", True, True)
        await queue.join("write")
        await queue.join("second read", True, True)
        await queue.join("either", True, master_as_replica_weight=1)
        await queue.give_back(held)
        await queue.end()
        assert queue.served == ["read", "write", "second read", "either"]


@virtual
async def test_who_can_be_served_is_not_held_up_by_who_cannot() -> None:
    async with Bench(size=1) as bench:
        (held,), queue = await bench.drain(), Queue(bench)
        await queue.join("write")
        await queue.join("read", True)
        assert queue.served == ["read"]
        await queue.give_back(held)
        await queue.end()


@pytest.mark.parametrize("first", ["db2", "db3"])
@virtual
async def test_a_waiter_is_bound_to_no_host(first: str) -> None:
    async with Bench(replicas=2, size=1) as bench:
        held, queue = await bench.drain(read_only=True), Queue(bench)
        await queue.join("a", True)
        await queue.give_back(next(c for c in held if c.server is bench[first]))
        assert (await queue.tasks["a"]).server is bench[first]
        await bench.manager.release(next(c for c in held if c.server is not bench[first]))
        await queue.end()


@virtual
async def test_a_waiter_goes_to_a_host_that_comes_meanwhile() -> None:
    async with Bench(size=1, refresh_delay=0.3) as bench:
        (held,), queue = await bench.drain(), Queue(bench)
        await queue.join("a", timeout=3)
        bench.network.failover(old_stays=True)
        assert (await queue.tasks["a"]).server is bench["db2"]
        await bench.manager.release(held)
        await queue.end()


@virtual
async def test_all_hosts_are_hurried_when_a_waiter_loses_the_last_one() -> None:
    async with Bench(size=1, refresh_delay=60) as bench:
        (held,), queue = await bench.drain(), Queue(bench)
        await queue.join("a", timeout=9)
        bench["db1"].down()
        await asyncio.sleep(2)
        bench["db2"].promote()
        began = now()
        assert (await queue.tasks["a"]).server is bench["db2"]
        assert now() - began < 0.1
        await bench.manager.release(held)
        await queue.end()


@virtual
async def test_a_waiter_whose_host_is_lost_goes_elsewhere() -> None:
    async with Bench(replicas=2, size=1, refresh_delay=0.3) as bench:
        held, queue = await bench.drain(read_only=True), Queue(bench)
        await queue.join("a", True, timeout=5)
        bench["db2"].down()
        await asyncio.sleep(1)
        assert queue.served == []
        await queue.give_back(next(c for c in held if c.server is bench["db3"]))
        assert (await queue.tasks["a"]).server is bench["db3"]
        await bench.manager.release(next(c for c in held if c.server is bench["db2"]))
        await queue.end()


@pytest.mark.parametrize("gone", ["first", "middle", "last"])
@virtual
async def test_who_is_cancelled_leaves_the_line(gone: str) -> None:
    async with Bench(size=1) as bench:
        (held,), queue = await bench.drain(), Queue(bench)
        for name in ("first", "middle", "last"):
            await queue.join(name)
        queue.tasks.pop(gone).cancel()
        await queue.give_back(held)
        await queue.end()
        assert queue.served == [name for name in ("first", "middle", "last") if name != gone]


@pytest.mark.parametrize("order", ["cancelled first", "served first"])
@virtual
async def test_a_slot_given_to_one_cancelled_in_the_same_turn_goes_to_the_next(order: str) -> None:
    async with Bench(size=1) as bench:
        (held,), queue = await bench.drain(), Queue(bench)
        await queue.join("a")
        await queue.join("b")
        held.terminate()  # so that giving it back takes no turn of the loop
        if order == "cancelled first":
            queue.tasks["a"].cancel()
            await bench.manager.release(held)
        else:
            await bench.manager.release(held)
            queue.tasks["a"].cancel()
        await asyncio.wait([queue.tasks["a"]])
        assert queue.tasks.pop("a").cancelled()
        await queue.end()
        assert queue.served == ["b"]


@virtual
async def test_a_slot_on_a_host_that_is_lost_in_the_same_turn_is_not_used() -> None:
    async with Bench(replicas=3, size=1, refresh_delay=60) as bench:
        held, queue = await bench.drain(read_only=True), Queue(bench)
        lost, kept, other = sorted(held, key=lambda connection: connection.address)
        await queue.join("a", True, timeout=5)
        lost.terminate()  # so that giving it back takes no turn of the loop
        await bench.manager.release(lost)
        lose(bench.manager, lost.address)
        await settle()
        assert queue.served == []
        await queue.give_back(kept)
        assert (await queue.tasks["a"]).address == kept.address
        await bench.manager.release(other)
        await queue.end()


@virtual
async def test_a_slot_on_a_host_that_changes_its_role_in_the_same_turn_is_not_used() -> None:
    async with Bench(replicas=0, size=1, refresh_delay=60) as bench:
        (held,), queue = await bench.drain(), Queue(bench)
        await queue.join("a", timeout=5)
        held.terminate()  # so that giving it back takes no turn of the loop
        bench["db1"].in_recovery = True
        await bench.manager.release(held)
        demote(bench.manager, held.address)
        await settle()
        assert queue.served == []
        assert in_use(bench.manager) == 0
        with pytest.raises(AcquireTimeoutError):
            await queue.tasks["a"]


@virtual
async def test_who_loses_its_slot_comes_before_those_who_came_later() -> None:
    async with Bench(replicas=0, size=1, acquire_timeout=9) as bench:
        queue = Queue(bench)
        bench["db1"].silent_to_connects = True
        bench["db1"].break_connections()
        for name in ("connects", "waits", "waits too"):
            await queue.join(name)
        await bench.until_roles("unavailable")
        bench["db1"].up()
        await bench.until_roles("master")
        await bench.manager.release(await queue.tasks.pop("connects"))
        await bench.manager.release(await queue.tasks.pop("waits"))
        await queue.end()
        assert queue.served == ["connects", "waits", "waits too"]


class Refusing(FakeAdapter):
    """Refuses one host's connections at once, before anything is awaited."""

    refused = ""

    def acquire_from_pool(self, pool: FakePool, /, **kwargs: Any) -> Awaitable[FakeConnection]:
        if pool.address == self.refused:
            return self.refuse()
        return super().acquire_from_pool(pool, **kwargs)

    async def refuse(self) -> FakeConnection:
        raise ConnectionRefusedError


@virtual
async def test_who_is_refused_at_once_stands_behind_those_who_wait() -> None:
    async with Bench(size=1, adapter=Refusing, acquire_timeout=9, refresh_delay=60) as bench:
        (held,), queue = await bench.drain(), Queue(bench)
        await queue.join("waits")
        assert isinstance(bench.adapter, Refusing)
        bench.adapter.refused = "db2:5432"
        await queue.join("refused", True, master_as_replica_weight=1)
        await bench.manager.release(held)
        await bench.manager.release(await queue.tasks.pop("waits"))
        await queue.end()
        assert queue.served == ["waits", "refused"]


@virtual
async def test_who_is_refused_at_once_has_its_timeout_still() -> None:
    async with Bench(replicas=0, adapter=Refusing, refresh_delay=60) as bench:
        assert isinstance(bench.adapter, Refusing)
        bench.adapter.refused = "db1:5432"
        began = now()
        acquire = start(bench.manager.acquire(timeout=3))
        await asyncio.wait([acquire], timeout=30)
        assert isinstance(acquire.exception(), AcquireTimeoutError)
        assert now() - began == pytest.approx(3, abs=1e-3)


@virtual
async def test_a_connection_that_comes_as_its_host_is_lost_is_not_used() -> None:
    async with Bench(refresh_delay=60) as bench:
        held = await bench.manager.acquire()
        bench["db1"].latency = 0.1
        acquire = start(bench.manager.acquire(timeout=0.5))
        await settle()
        asyncio.get_running_loop().call_at(now() + 0.1, lose, bench.manager, "db1:5432")
        await asyncio.sleep(0.1)
        await settle()
        assert not acquire.done()
        assert out(bench.manager) == [held]
        acquire.cancel()
        await asyncio.wait([acquire])
        await bench.manager.release(held)
        assert in_use(bench.manager) == 0


@virtual
async def test_a_slot_that_comes_as_the_time_is_up_is_not_lost() -> None:
    async with Bench(size=1) as bench:
        bench["db1"].latency = 0
        (held,), loop = await bench.drain(), asyncio.get_running_loop()
        waiting = [start(bench.manager.acquire(timeout=1)) for _ in range(2)]
        tasks: list[asyncio.Task[None]] = []
        loop.call_at(now() + 1, lambda: tasks.append(start(bench.manager.release(held))))
        done = await asyncio.gather(*waiting, return_exceptions=True)
        for outcome in done:
            if isinstance(outcome, FakeConnection):
                await bench.manager.release(outcome)
            else:
                assert isinstance(outcome, AcquireTimeoutError)
        await asyncio.gather(*tasks)
        assert in_use(bench.manager) == 0
        async with bench.manager.acquire():
            pass


@virtual
async def test_a_burst_is_spread_over_what_is_free() -> None:
    for _ in range(5):
        async with Bench(replicas=2) as bench:
            held = await asyncio.gather(*(start(bench.manager.acquire(True)) for _ in range(10)))
            assert Counter(c.server.name for c in held) == {"db2": 5, "db3": 5}


@virtual
async def test_round_robin_takes_turns_and_stays_fair_when_hosts_come_and_go() -> None:
    async with Bench(replicas=3, balancer_policy=RoundRobinBalancerPolicy) as bench:

        async def turns(count: int) -> Counter[str]:
            seen: Counter[str] = Counter()
            for _ in range(count):
                async with bench.manager.acquire(True) as connection:
                    seen[connection.server.name] += 1
            return seen

        assert await turns(30) == {"db2": 10, "db3": 10, "db4": 10}
        bench["db3"].down()
        await bench.until_roles("master replica unavailable replica")
        assert await turns(30) == {"db2": 15, "db4": 15}
        bench["db3"].up()
        await bench.until_roles("master replica replica replica")
        counts = await turns(30)
        assert max(counts.values()) - min(counts.values()) <= 1


@virtual
async def test_who_waits_for_a_full_host_makes_it_suspected() -> None:
    async with Bench(size=1, refresh_delay=60) as bench:
        await bench.drain()
        bench["db1"].freeze()
        waiting = start(bench.manager.acquire(timeout=5))
        took = await bench.until(lambda: bench.role("db1") == "unavailable", 2)
        assert took == pytest.approx(1.05, abs=0.05)
        waiting.cancel()
        await asyncio.wait([waiting])


@virtual
async def test_a_host_that_gives_slots_back_is_not_suspected() -> None:
    async with Bench(size=1, refresh_delay=60) as bench:
        asked = bench["db1"].queries

        async def use() -> None:
            for _ in range(50):
                async with bench.manager.acquire(timeout=5):
                    await asyncio.sleep(0.02)

        await asyncio.gather(*(use() for _ in range(2)))
        assert bench["db1"].queries == asked


@virtual
async def test_who_waits_for_a_pool_that_is_retired_is_told_at_once() -> None:
    async with Bench(replicas=1, size=1, refresh_delay=0.3, acquire_timeout=5) as bench:
        held = await bench.manager.acquire_from_pool(bench.pool("db2"))
        waiting = start(bench.manager.acquire_from_pool(bench.pool("db2")))
        await settle()
        bench["db2"].down()
        await bench.until_roles("master unavailable", 1)
        try:
            with pytest.raises(ValueError):
                await asyncio.wait_for(waiting, 0.5)
        finally:
            await bench.manager.release(held)


@virtual
async def test_when_all_are_overdue_those_with_free_slots_serve() -> None:
    async with Bench(replicas=2, size=1, refresh_delay=60) as bench:
        store = bench.manager._lifecycle.store  # pyright: ignore[reportPrivateUsage]
        store.mark_overdue("db3:5432")
        held = await bench.manager.acquire_replica()
        assert held.server is bench["db2"]
        waiting = start(bench.manager.acquire_replica())
        await settle()
        assert not waiting.done()
        began = now()
        store.mark_overdue("db2:5432")
        other = await waiting
        assert other.server is bench["db3"]
        assert now() < began + 0.01
        for connection in (held, other):
            await bench.manager.release(connection)


@virtual
async def test_when_the_last_prompt_host_is_suspended_the_overdue_serve() -> None:
    async with Bench(replicas=2, size=1, refresh_delay=60) as bench:
        slots = bench.manager._checkouts.slots  # pyright: ignore[reportPrivateUsage]
        store = bench.manager._lifecycle.store  # pyright: ignore[reportPrivateUsage]
        store.mark_overdue("db3:5432")
        held = await bench.manager.acquire_replica()
        waiting = start(bench.manager.acquire_replica())
        await settle()
        began = now()
        host_pool = slots.host_pool_of(bench.pool("db2"))
        assert host_pool is not None
        slots.connect_failed(host_pool, OSError("refused"))
        other = await waiting
        assert other.server is bench["db3"]
        assert now() < began + 0.01
        for connection in (held, other):
            await bench.manager.release(connection)


@virtual
async def test_those_whose_connects_are_aborted_keep_their_order() -> None:
    sizes = {"min_size": 9, "max_size": 9}
    async with Bench(replicas=0, pool_factory_kwargs=sizes) as bench:
        queue, names = Queue(bench), "abcdefghi"
        bench["db1"].silent_to_connects = True
        bench["db1"].break_connections()
        for name in names:
            await queue.join(name, timeout=9)
        await bench.until_roles("unavailable")
        bench["db1"].up()
        await bench.until_roles("master")
        await queue.end()
        assert "".join(queue.served) == names


@virtual
async def test_a_full_server_goes_on_serving_what_is_open() -> None:
    async with Bench(replicas=0) as bench:
        held = [await bench.manager.acquire() for _ in range(5)]
        for connection in held:
            await bench.manager.release(connection)
        bench["db1"].refuse_connects = FULL
        served = 0
        connects = bench["db1"].connects
        until = now() + 5

        async def work() -> None:
            nonlocal served
            while now() < until:
                async with bench.manager.acquire():
                    await asyncio.sleep(0.01)
                served += 1

        await asyncio.gather(*(work() for _ in range(20)))
        # Five connections could do 500 a second.
        assert served > 400 * 5
        assert bench["db1"].connects - connects <= 5 + 5 / RETRY_GAP  # the first ones in one turn
        # And it is trusted again, one connection at a time.
        bench["db1"].refuse_connects = None
        await asyncio.sleep(RETRY_GAP)
        began = now()
        held = await asyncio.gather(*(start(bench.manager.acquire()) for _ in range(10)))
        assert len(set(held)) == 10
        assert now() - began < 2 * RETRY_GAP
        for connection in held:
            await bench.manager.release(connection)


@virtual
async def test_a_failed_connect_is_forgotten_in_time() -> None:
    async with Bench(replicas=0) as bench:
        held = await bench.manager.acquire()
        bench["db1"].refuse_connects = FULL
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire(timeout=0.1)
        bench["db1"].refuse_connects = None
        await bench.manager.release(held)
        await asyncio.sleep(4)
        bench["db1"].latency = 0.05
        began = now()
        burst = await asyncio.gather(*(start(bench.manager.acquire()) for _ in range(10)))
        assert now() - began < 0.2, "all connect at once"
        for connection in burst:
            await bench.manager.release(connection)


@virtual
async def test_what_is_free_is_what_a_connect_trial_allows() -> None:
    async with Bench(replicas=2, size=10, refresh_delay=60) as bench:
        manager = bench.manager
        slots = manager._checkouts.slots  # pyright: ignore[reportPrivateUsage]
        pool = bench.pool("db2")
        host_pool = slots.host_pool_of(pool)
        assert host_pool is not None
        held = [await manager.acquire_from_pool(pool) for _ in range(3)]
        assert manager.get_pool_freesize(pool) == 7
        slots.connect_failed(host_pool, OSError("refused"))
        assert manager.get_pool_freesize(pool) == 0
        await manager.release(held.pop())
        assert manager.get_pool_freesize(pool) == 0
        # The greedy policy is not drawn there, though the pool has the most connections.
        others = [await manager.acquire_replica() for _ in range(9)]
        assert {each.server.name for each in others} == {"db3"}
        for connection in (*held, *others):
            await manager.release(connection)


@pytest.mark.parametrize("refresh_delay", [1.0, 30.0])
@virtual
async def test_a_host_whose_connect_failed_is_tried_again_soon(refresh_delay: float) -> None:
    policy = RoundRobinBalancerPolicy
    async with Bench(replicas=2, refresh_delay=refresh_delay, balancer_policy=policy) as bench:
        held = [await bench.manager.acquire(read_only=True) for _ in range(2)]
        for connection in held:
            await bench.manager.release(connection)
        bench["db2"].break_connections(ConnectionResetError())
        bench["db2"].refuse_connects = FULL
        for _ in range(4):
            async with bench.manager.acquire(read_only=True) as connection:
                assert connection.server is bench["db3"]
        bench["db2"].refuse_connects = None

        async def served_by_both() -> bool:
            held = [await bench.manager.acquire(read_only=True) for _ in range(4)]
            for connection in held:
                await bench.manager.release(connection)
            return len({connection.server for connection in held}) == 2

        began = now()
        while not await served_by_both():
            assert now() - began < 2 * RETRY_GAP
            await asyncio.sleep(0.01)


@virtual
async def test_a_connect_that_hangs_gives_way_to_a_free_host() -> None:
    async with Bench(replicas=2) as bench:
        held = [await bench.manager.acquire(read_only=True) for _ in range(2)]
        # A full backlog, a stuck postmaster: what is open goes on.
        bench["db2"].silent_to_connects = True
        slow = 0
        for _ in range(6):
            began = now()
            held.append(await bench.manager.acquire(read_only=True))
            slow += now() - began > 0.1
        assert bench.roles == "master replica replica"
        assert slow <= 1
        assert [connection.server.name for connection in held].count("db2") == 1
        for connection in held:
            await bench.manager.release(connection)


@virtual
async def test_a_connect_that_hangs_is_waited_for_where_there_is_no_other() -> None:
    async with Bench(replicas=0, quirks=FakeQuirks(), refresh_timeout=5) as bench:
        held = await bench.manager.acquire()
        bench["db1"].latency = 0.2  # several round trips make a connect
        connection = await bench.manager.acquire(timeout=5)
        await bench.manager.release(connection)
        await bench.manager.release(held)


@virtual
async def test_a_slow_connect_that_succeeds_leaves_no_doubt() -> None:
    async with Bench(replicas=0, size=1) as bench:
        first = await bench.manager.acquire()
        break_one(first)
        await bench.manager.release(first)
        await bench.check()
        bench["db1"].latency = 0.55  # doubted after half a second
        async with bench.manager.acquire(timeout=1):
            bench["db1"].latency = 0.001
        async with asyncio.timeout(0.05), bench.manager.acquire():
            pass


@pytest.mark.parametrize("timeout", [0, 0.01])
@virtual
async def test_a_short_timeout_says_nothing_about_a_host(timeout: float) -> None:
    async with Bench(replicas=0, size=3) as bench:
        first = await bench.manager.acquire()
        bench["db1"].latency = 0.05
        for _ in range(3):
            with pytest.raises(AcquireTimeoutError):
                await bench.manager.acquire(timeout=timeout)
        others = await asyncio.gather(*(start(bench.manager.acquire()) for _ in range(2)))
        for connection in (first, *others):
            await bench.manager.release(connection)


@virtual
async def test_who_waited_for_a_role_looks_for_stuck_hosts_too() -> None:
    async with Bench(replicas=0, size=1, refresh_delay=30) as bench:
        bench["db1"].down()
        await bench.check()
        waiting = [start(bench.manager.acquire(timeout=20)) for _ in range(2)]
        await settle()
        bench["db1"].up()
        await bench.until_roles("master")
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        queries = bench["db1"].queries
        await asyncio.sleep(1)
        assert 2 <= bench["db1"].queries - queries <= 3  # twice a second
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        for task in waiting:
            if not task.cancelled():
                await bench.manager.release(task.result())


@pytest.mark.parametrize("begun", [True, False])
@virtual
async def test_a_pool_that_is_retired_gives_nothing_and_says_so_at_once(begun: bool) -> None:
    async with Bench(replicas=1) as bench:
        pool = bench.pool("db2")
        held = await bench.manager.acquire_from_pool(pool)
        context = bench.manager.acquire_from_pool(pool)
        bench["db2"].silent_to_connects = True
        task = start(context) if begun else None
        await settle()
        lose(bench.manager, "db2:5432")
        began = now()
        queries = bench["db1"].queries
        with pytest.raises(ValueError, match="retired"):
            await (context if task is None else task)
        assert now() - began < 0.1
        assert bench["db1"].queries - queries <= 1
        await bench.manager.release(held)
        bench["db2"].silent_to_connects = False


@virtual
async def test_who_waits_when_the_last_candidate_is_suspended_has_the_other_hosts_asked() -> None:
    async with Bench(size=1, refresh_delay=60) as bench:
        held = await bench.manager.acquire()
        await asyncio.sleep(1)
        waiter = start(bench.manager.acquire())
        await settle()
        slots = bench.manager._checkouts.slots  # pyright: ignore[reportPrivateUsage]
        host_pool = slots.host_pool_of(bench.pool("db1"))
        assert host_pool is not None
        queries = bench["db2"].queries
        slots.connect_failed(host_pool, OSError("refused"))
        await asyncio.sleep(0.1)
        assert bench["db2"].queries > queries
        await bench.manager.release(held)
        await bench.manager.release(await waiter)


@virtual
async def test_no_waiter_is_sent_where_a_connect_has_just_failed() -> None:
    async with Bench(replicas=0, size=2, refresh_delay=60) as bench:
        held = await bench.manager.acquire()
        bench["db1"].refuse_connects = FULL
        connects = bench["db1"].connects
        # The first connects, and the second finds no slot.
        waiting = [start(bench.manager.acquire(timeout=5)) for _ in range(2)]
        await asyncio.sleep(RETRY_GAP / 2)
        assert bench["db1"].connects == connects + 1
        bench["db1"].refuse_connects = None
        await bench.manager.release(held)
        for task in waiting:
            await bench.manager.release(await task)


@virtual
async def test_a_connect_that_has_ended_asks_for_no_check() -> None:
    async with Bench(replicas=0, size=2, refresh_delay=60) as bench:
        held = await bench.manager.acquire()
        bench["db1"].latency = 0.01
        queries = bench["db1"].queries
        other = await bench.manager.acquire()
        await asyncio.sleep(1)
        assert bench["db1"].queries == queries
        bench["db1"].latency = 0.001
        for connection in (held, other):
            await bench.manager.release(connection)
