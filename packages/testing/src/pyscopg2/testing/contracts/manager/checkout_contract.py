"""The part of `pyscopg2.testing.manager_contract` on connections that are taken and given back."""

import asyncio
from typing import Generic

import pytest

from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.testing.bench import SOON
from pyscopg2.testing.contracts.interrupted import ENOUGH, Interrupted
from pyscopg2.testing.contracts.manager.desk import SIZE, Desk
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("CheckoutContract",)


class CheckoutContract(Generic[PoolT, ConnT]):
    """A part of `ManagerContract`."""

    @in_own_loop
    async def test_who_waits_gets_the_slot_that_frees_first(self, desk: Desk[PoolT, ConnT]) -> None:
        async with desk.manager() as manager:
            held = await desk.hold_all(manager, *desk.cluster.replicas)
            with pytest.raises(AcquireTimeoutError) as caught:
                await manager.acquire_replica(timeout=0.05)
            assert isinstance(caught.value, TimeoutError), "AcquireTimeoutError is a TimeoutError"
            for node in desk.cluster.nodes:
                assert str(manager.topology[node.address]) in str(caught.value), (
                    "AcquireTimeoutError names each host"
                )
            await desk.release_all(manager, held)
            for index, node in ((0, desk.cluster.replicas[0]), (-1, desk.cluster.replicas[-1])):
                held = await desk.hold_all(manager, *desk.cluster.replicas)
                waiting = asyncio.ensure_future(desk.reader(manager))
                await asyncio.sleep(0)  # its first step ends in the wait queue
                await manager.release(held.pop(index))
                assert await waiting == node.name, "who waits gets the slot that frees first"
                await desk.release_all(manager, held)

    @in_own_loop
    async def test_release_refuses_what_it_does_not_know(self, desk: Desk[PoolT, ConnT]) -> None:
        async with desk.manager() as manager, desk.manager() as other:
            connection = await manager.acquire()
            with pytest.raises(ValueError, match="not a connection of this manager"):
                await other.release(connection)
            await manager.release(connection)
            with pytest.raises(ValueError, match="given back already"):
                await manager.release(connection)

    @pytest.mark.parametrize(
        "case",
        ["idle", "another's", "terminated", "ended with its pool", "on its way", "a block's"],
    )
    @in_own_loop
    async def test_what_is_given_back_twice_is_refused(
        self, desk: Desk[PoolT, ConnT], case: str
    ) -> None:
        """Whoever has the connection by then keeps it, be it the same object."""

        async def use(manager: BasePoolManager[PoolT, ConnT], until: asyncio.Event) -> str:
            async with manager.acquire() as connection:
                await until.wait()
                return await desk.server_of(manager, connection)

        async with desk.manager() as manager:
            pool = await manager.get_pool(read_only=False)
            held = await desk.hold_all(manager, desk.cluster.primary)
            connection = held.pop()
            given_back = asyncio.Event()
            others: list[asyncio.Task[str]] = []
            releasing: asyncio.Future[None] | None = None
            if case == "terminated":
                manager.adapter.terminate_connection(connection)
            if case == "ended with its pool":
                await manager.terminate()
            if case == "a block's":
                await manager.release(connection)
                async with manager.acquire() as connection:
                    pass
            elif case == "on its way":
                releasing = asyncio.ensure_future(manager.release(connection))
                await asyncio.sleep(0)
            else:
                await manager.release(connection)
            if case == "another's":
                # In a task of its own: it is known by that.
                others.append(asyncio.create_task(use(manager, given_back)))
                await desk.until(lambda: manager.get_pool_freesize(pool) == 0, "it has it")
            with pytest.raises(ValueError):
                await manager.release(connection)
            with pytest.raises(ValueError):
                await manager.release_to_pool(connection, pool)
            if releasing is not None:
                await releasing
            given_back.set()
            for other in others:
                assert await other == desk.cluster.primary.name, (
                    "its connection was taken away by a release of another task"
                )
            await desk.release_all(manager, held)
            if case != "ended with its pool":
                await desk.all_slots_are_free(manager)

    @pytest.mark.parametrize("again", [False, True], ids=["once", "at every await"])
    @in_own_loop
    async def test_requests_that_are_cancelled_cost_no_slot(
        self, desk: Desk[PoolT, ConnT], again: bool
    ) -> None:
        """At each of their awaits in turn; ``again``: by a cancel scope, which ends what it
        began."""

        async def request(manager: BasePoolManager[PoolT, ConnT]) -> None:
            async with manager.acquire() as connection:
                for _ in range(2):
                    await desk.insert(connection, "requested")

        async with desk.manager() as manager:
            for turn in range(ENOUGH):
                requests = [
                    # One more than there are slots: it waits for one.
                    Interrupted(request(manager), turn + 2 * number, again, late=False)
                    for number in range(SIZE + 1)
                ]
                async with asyncio.timeout(SOON):
                    await asyncio.wait([each.task for each in requests])
                assert not any(each.escaped for each in requests), "it left its scope"
                await desk.all_slots_are_free(manager)
                if not any(each.happened for each in requests):
                    return
            raise AssertionError("it suspends for ever")

    @in_own_loop
    async def test_a_pool_of_ones_own_choice(self, desk: Desk[PoolT, ConnT]) -> None:
        async with desk.manager() as manager:
            for node in desk.cluster.nodes:
                pool = desk.pool_of(manager, node)
                kwargs = desk.subject.acquire_kwargs
                async with manager.acquire_from_pool(pool, **kwargs) as connection:
                    assert await desk.server_of(manager, connection) == node.name, (
                        "a connection of another pool"
                    )
                    assert manager.get_pool_freesize(pool) == SIZE - 1, "an acquire counts one slot"
                connection = await manager.acquire_from_pool(pool, **kwargs)
                assert await desk.server_of(manager, connection) == node.name, (
                    "a connection of another pool"
                )
                assert manager.get_pool_freesize(pool) == SIZE - 1, "an acquire counts one slot"
                other = next(each for each in manager.pools if each is not pool)
                with pytest.raises(ValueError, match="not a connection of this pool"):
                    await manager.release_to_pool(connection, other)
                await manager.release_to_pool(connection, pool, **desk.subject.release_kwargs)
                assert manager.get_pool_freesize(pool) == SIZE, "a release frees its slot"
                with pytest.raises(ValueError, match="given back already"):
                    await manager.release_to_pool(connection, pool)

    @in_own_loop
    async def test_a_connection_taken_by_hand_can_be_registered(
        self, desk: Desk[PoolT, ConnT]
    ) -> None:
        async with desk.manager() as manager:
            pool = await manager.get_pool(read_only=False)
            for by_hand in (True, False):
                if by_hand:
                    connection = await manager.adapter.acquire_from_pool(pool)
                else:
                    connection = await manager.acquire_from_pool(pool)
                for _ in range(2):
                    manager.register_connection(connection, pool)
                    assert manager.get_pool_freesize(pool) == SIZE - 1, (
                        "a registered connection counts one slot"
                    )
                await manager.release(connection)
                assert manager.get_pool_freesize(pool) == SIZE, "a release frees its slot"

    @in_own_loop
    async def test_a_connection_that_breaks_costs_its_user_one_error(
        self, desk: Desk[PoolT, ConnT]
    ) -> None:
        async with desk.manager() as manager:
            pool = await manager.get_pool(read_only=False)
            for _ in range(SIZE + 1):
                with pytest.raises(desk.subject.errors):
                    async with manager.acquire() as connection:
                        assert not manager.is_connection_closed(connection), (
                            "is_connection_closed() of a new one"
                        )
                        await desk.end_backend(manager, connection)
                        await desk.insert(connection, "broken")
            assert await desk.writer(manager) == desk.cluster.primary.name, (
                "writes go on after broken connections"
            )
            assert manager.pool_is_master(pool), "broken connections have cost the host its place"
            await desk.until(lambda: manager.get_pool_freesize(pool) == SIZE, "all is back")
            connection = await manager.acquire()
            manager.adapter.terminate_connection(connection)
            assert manager.is_connection_closed(connection), (
                "is_connection_closed() after terminate_connection()"
            )
            await manager.release(connection)

    @pytest.mark.parametrize("out", range(SIZE + 1))
    @in_own_loop
    async def test_connections_that_are_ended_cost_one_error_each_that_is_out(
        self, desk: Desk[PoolT, ConnT], out: int
    ) -> None:
        """All that there are, as an administrator ends them: what was idle is replaced in silence,
        and no host, which is well, goes out of service."""
        async with desk.manager(refresh_timeout=1.0) as manager:
            pools = manager.pools
            for _ in range(2):
                held = await desk.hold_all(manager, *desk.cluster.nodes)
                while len(held) > out * len(desk.cluster.nodes):
                    await manager.release(held.pop(0))
                async with desk.watching(manager) as hosts_lost:
                    await desk.end_all_backends()
                    async with asyncio.timeout(SOON):
                        for connection in held:
                            with pytest.raises(desk.subject.errors):
                                await desk.insert(connection, "lost")
                            await manager.release(connection)
                        for node in desk.cluster.nodes:
                            await desk.all_slots_are_free(manager, node)
                    await manager.wait_next_pool_check(SOON)
                assert not hosts_lost, "hosts that are well went out of service"
                assert manager.pools == pools, "hosts that are well have got new pools"
