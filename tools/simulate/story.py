"""What happens in a run, from the first use to the end, and the invariants of its stages."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.monitoring.attention import KEPT_TIME
from pyscopg2.testing.fake import FakeConnection
from pyscopg2.testing.fake_server import FakeError

from .driver import HAIR, Guest
from .inspection import Inspection
from .plan import dice
from .reader import READERS, read
from .user import Stage, use
from .world import World

PROOF = 0.5
"""Seconds in which a replica that is well is proven to have replayed what was written before."""


class Story:
    """Users come, trouble comes and goes, and the manager ends."""

    def __init__(self, world: World, inspection: Inspection) -> None:
        self._world = world
        self._inspection = inspection

    async def run(self) -> None:
        """From the first use to the end."""
        plan = self._world.plan
        self._world.note("{}", plan)
        for number in range(1, plan.users + 1):
            roll = dice(plan.seed, f"user {number}")
            self._begin(use(self._world, f"user {number}", roll))
        if plan.wal:
            self._world.history.start()
            for number in range(1, READERS + 1):
                roll = dice(plan.seed, f"reader {number}")
                self._begin(read(self._world, number, roll))
        trouble = self._world.loop.create_task(self._world.trouble.run())
        if plan.amid:
            await asyncio.sleep(dice(plan.seed, "amid").uniform(0, plan.trouble))
        else:
            await trouble
            await self._recover()
        await self._end()
        self._world.resting = True
        self._world.history.stop()
        if not trouble.done():
            trouble.cancel()
            self._world.trouble.heal()
        await self._leave_nothing()

    def _begin(self, life: Coroutine[Any, Any, None]) -> None:
        self._world.users.append(self._world.loop.create_task(life))

    async def _recover(self) -> None:
        servers = self._world.network.servers.values()
        while not all(map(self._world.trouble.is_settled, servers)):
            await asyncio.sleep(0.05)
        for operation in self._world.present.values():
            waits = operation.stage == Stage.ACQUIRE and not operation.connecting
            if (
                waits
                and operation.lasts() > 2 * self._world.plan.recovery
                and self._inspection.able(operation)
            ):
                self._world.broken("when all is well, who waits is served", f"{operation}")
        self._world.resting = True
        await asyncio.wait(self._world.users)
        self._world.note("all users have gone")
        await self._take_all()
        await self._read_fresh()
        self._world.history.stop()
        await self._be_quiet()

    async def _take_all(self) -> None:
        """Every slot can be had, on every host, at once."""
        plan, began = self._world.plan, self._world.loop.time()
        await asyncio.sleep(plan.refresh_delay * 1.2 + plan.refresh_timeout)
        manager = self._world.manager
        if len(manager.pools) != plan.hosts:
            self._world.broken("who is well is known", f"{manager.topology}")
            return
        took = [
            asyncio.ensure_future(manager.acquire_from_pool(pool, by=Guest()))
            for pool in manager.pools
            for _ in range(plan.size)
        ]
        began = self._world.loop.time()
        done, late = await asyncio.wait(took, timeout=10 * plan.latency)
        failed = [task for task in done if task.exception() is not None]
        if late or failed:
            host_pools = [
                f"{host_pool!r}, limit {host_pool.limit}" for host_pool in manager.slots.host_pools
            ]
            self._world.broken("every slot can be had", f"{len(late)}, {failed}: {host_pools}")
            return
        self._world.note("all slots taken in {:.4f} s", self._world.loop.time() - began)
        for task in took:
            try:
                await manager.release(task.result())
            except (FakeError, OSError):
                # Opened before the last trouble, and this driver does not look, or in vain.
                if plan.notices_breaks and not self._world.trouble.silent:
                    raise
        for read_only in (False, True)[: plan.hosts]:
            async with asyncio.timeout(10 * plan.latency):
                await manager.release(await manager.acquire(read_only, by=Guest()))

    async def _read_fresh(self) -> None:
        """Reads with bounds are served by replicas: of all that is proven now, and of what was
        written just now."""
        manager, plan = self._world.manager, self._world.plan
        if not plan.wal or not plan.rich or plan.hosts == 1:
            return
        patience = PROOF + 20 * plan.latency
        with manager.causal():
            async with manager.acquire_master(by=Guest()) as connection:
                await connection.execute("insert at the end")
            for max_lag in (1.0, None):
                began = self._world.loop.time()
                try:
                    async with manager.acquire_replica(
                        False, 0.0, patience, max_lag=max_lag, by=Guest()
                    ) as connection:
                        self._world.note("a fresh read by {}", connection.address)
                except AcquireTimeoutError as exc:
                    took = self._world.loop.time() - began
                    self._world.broken("replicas serve bounded reads", f"{took:.3f} s: {exc}")

    async def _be_quiet(self) -> None:
        """Nothing happens: a check per host and refresh delay, and nothing else."""
        plan, count = self._world.plan, 4
        kept = KEPT_TIME if plan.wal else 0.0
        await asyncio.sleep(2 * plan.refresh_delay + 0.3 + kept)
        before = {s: (s.queries, s.connects) for s in self._world.network.servers.values()}
        await asyncio.sleep(count * plan.refresh_delay)
        for server, (queries, connects) in before.items():
            if server.queries - queries > (count + 1) * (1 if plan.rich else 2):
                asked = f"{server.queries - queries} in {count} refresh delays"
                self._world.broken("a check per refresh delay", f"{server}: {asked}")
            if server.connects != connects:
                self._world.broken("no connect while all is well", f"{server}")
        for host_pool in self._world.manager.slots.host_pools:
            if (
                host_pool.in_use
                or host_pool.suspended
                or self._world.manager.topology[host_pool.address].overdue
                or host_pool.limit != host_pool.size
            ):
                self._world.broken("all is as new", f"{host_pool!r}, limit {host_pool.limit}")
        tasks = len(asyncio.all_tasks()) - 1
        if tasks > 2 * plan.hosts:
            self._world.broken("tasks are bounded", f"{tasks} while nothing happens")

    async def _end(self) -> None:
        plan, manager = self._world.plan, self._world.manager
        self._world.note("the end: {}", plan.ending)
        if plan.ending == "nobody closes":
            return
        roll = dice(plan.seed, "end")
        wait = roll.choice((0.0, 0.1, 1.0))
        held: list[FakeConnection] = []
        if plan.ending == "close while some are out" and not plan.amid:
            held = [await manager.acquire(by=Guest()) for _ in range(plan.size)]
        began, stalled = self._world.loop.time(), self._world.loop.stalled
        if plan.ending in ("close", "close while some are out"):
            await self._close(wait)
        elif plan.ending == "close twice":
            await asyncio.gather(self._close(wait), self._close(wait))
            await self._close(10)
        elif plan.ending == "close, then terminate":
            first = self._world.loop.create_task(self._close(100))
            await asyncio.sleep(wait)
            await manager.terminate()
            await first
        elif plan.ending == "close, cancelled":
            first = self._world.loop.create_task(self._close(100))
            await asyncio.sleep(wait)
            if first.cancel():
                await asyncio.wait([first])
                if not first.cancelled():
                    self._world.broken("a cancellation comes out", "of close()")
        elif plan.ending == "terminate":
            self._world.closed = True
            await manager.terminate()
        else:
            failure = KeyError() if plan.ending == "leave the block with an error" else None
            wait = 10.0 if failure is None else 0.0
            try:
                async with manager:
                    self._world.closed = True
                    if failure is not None:
                        raise failure
            except KeyError:
                pass
        stood_still = self._world.loop.stalled - stalled
        took = self._world.loop.time() - began - stood_still
        self._world.ended = True
        self._world.note("closed in {:.4f} s", took)
        # A pool that does not close within the refresh timeout is terminated after it; a stall
        # takes nobody the time to end.
        spans = (2 if wait else 1) * (2 if stood_still else 1)
        if took > wait + spans * plan.refresh_timeout + HAIR:
            self._world.broken(
                "the end is bounded", f"{plan.ending}: {took:.4f} s, waiting {wait} s"
            )
        for connection in held:
            if not connection.is_closed:
                self._world.broken("nothing is out after the end", f"{connection!r}")
            with contextlib.suppress(FakeError):
                await manager.release(connection)

    async def _close(self, timeout: float) -> None:
        self._world.closed = True
        await self._world.manager.close(timeout)

    async def _leave_nothing(self) -> None:
        plan = self._world.plan
        if plan.ending == "nobody closes":
            return
        grace = plan.cancel_delay + 2 * plan.refresh_timeout + 1
        if users := [user for user in self._world.users if not user.done()]:
            await asyncio.wait(users, timeout=grace + 30)
        if stuck := [str(operation) for operation in self._world.present.values()]:
            self._world.broken("nobody is left behind at the end", ", ".join(stuck))
        await asyncio.sleep(grace)
        if self._world.network.leftovers:
            self._world.broken("nothing is left", ", ".join(self._world.network.leftovers))
        if tasks := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
            self._world.broken("nothing is left", ", ".join(map(repr, tasks)))
        if timers := self._world.loop.timers():
            self._world.broken("nothing is left", ", ".join(map(repr, timers)))
