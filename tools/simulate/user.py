"""Users: each does one thing after the other with the manager, and is cancelled now and then."""

import asyncio
import contextlib
import types
from collections.abc import Awaitable, Callable, Generator
from random import Random
from typing import Any, Protocol, TypeVar, cast

from pyscopg2.base import BasePoolManager
from pyscopg2.core.errors import AcquireTimeoutError, NotReadyError, PoolManagerClosedError
from pyscopg2.testing.fake import FakeConnection, FakePool
from pyscopg2.testing.fake_server import FakeError

from .driver import SimulationLoop
from .plan import Plan

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds that a user uses a connection before giving up."""


class UserError(Exception):
    """What a block raises by itself."""


class Stage:
    """Of an operation."""

    NEW = "new"
    ACQUIRE = "acquire"
    HOLD = "hold"
    RELEASE = "release"
    OTHER = "other"
    """It waits for something else."""


class Scene(Protocol):
    """What users see of the world."""

    loop: SimulationLoop
    plan: Plan
    closed: bool
    resting: bool

    @property
    def manager(self) -> BasePoolManager[FakePool, FakeConnection]: ...
    @property
    def in_trouble(self) -> bool: ...
    def begins(self, operation: "Operation") -> None: ...
    def got(self, operation: "Operation", connection: FakeConnection, took: float) -> None: ...
    def left(self, operation: "Operation", connection: FakeConnection) -> None: ...
    def wrote(self, operation: "Operation", connection: FakeConnection) -> None: ...
    def reads(self, operation: "Operation", connection: FakeConnection) -> None: ...
    def over(self, operation: "Operation") -> None: ...
    def note(self, text: str, *arguments: object) -> None: ...


class Operation:
    """One acquire, use and release, in one of the ways that there are."""

    def __init__(self, scene: Scene, name: str, roll: Random) -> None:
        plan = scene.plan
        self.scene = scene
        self.name = name
        self.roll = roll
        self.kind = roll.choice(KINDS)
        self.read_only = roll.random() < 0.5
        self.fallback: bool | None = None
        self.weight: float | None = None
        if self.read_only:
            self.fallback = roll.choice((None, None, True, False))
            self.weight = roll.choice((None, None, 0.0, 1.0))
        self.timeout: float | None = roll.choice((None, None, 0.0, 0.05, 0.5, 3.0, 60.0))
        if self.timeout == 60.0 and self.read_only and plan.hosts == 1:
            self.timeout = None
        self.pool: FakePool | None = None
        self.goal: Callable[[], bool] = bool
        """What it waits for, where that is something else."""
        self.stage = Stage.NEW
        self.since = 0.0
        """When the stage began, on the loop's clock."""
        self.stalled = 0.0
        """How long the loop had stood still by then."""
        self.connecting: FakePool | None = None
        self.connects = 0
        self.connection: FakeConnection | None = None
        self.cancelled = False
        self.gave_up = False
        """The block's connection was closed before its end."""
        self.statements: list[str] = []
        self.is_clean = False
        """It ended as it should."""
        self.never: list[str] = []
        """Statements that must not be there in the end: their block raised."""
        self.task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    def __str__(self) -> str:
        role = "pool" if self.kind in POOL_KINDS else "read" if self.read_only else "write"
        return f"{self.name} ({self.kind}, {role})"

    @property
    def allowed(self) -> float:
        """Seconds that its acquire may take."""
        if self.kind in POOL_KINDS or self.timeout is None:
            return self.scene.plan.acquire_timeout
        return self.timeout

    @property
    def falls_back(self) -> bool:
        return self.scene.plan.fallback_master if self.fallback is None else self.fallback

    @property
    def masters_too(self) -> bool | None:
        """None: the manager's dice decide."""
        weight = self.scene.plan.weight if self.weight is None else self.weight
        return {0.0: False, 1.0: True}.get(weight)

    def enter(self, stage: str) -> None:
        self.stage = stage
        self.since = self.scene.loop.time()
        self.stalled = self.scene.loop.stalled

    def lasts(self) -> float:
        """Seconds in this stage, but for those that the loop stood still."""
        loop = self.scene.loop
        return loop.time() - self.since - (loop.stalled - self.stalled)

    # Ways

    def _acquire(self) -> Any:
        self.enter(Stage.ACQUIRE)
        return self.scene.manager.acquire(
            self.read_only, self.fallback, self.weight, self.timeout, by=self
        )

    async def block(self) -> None:
        async with self._acquire() as connection:
            await self._use(connection)

    async def failing_block(self) -> None:
        with contextlib.suppress(UserError):
            async with self._acquire() as connection:
                try:
                    await self._use(connection)
                finally:
                    if self.scene.plan.commits_at_end:
                        self.never, self.statements = self.statements, []
                raise UserError

    async def early_block(self) -> None:
        """Releases its connection within the block."""
        async with self._acquire() as connection:
            await self._use_and_give_back(connection, self.scene.manager.release(connection))

    async def plain(self) -> None:
        connection = await self._acquire()
        await self._use_and_give_back(connection, self.scene.manager.release(connection))

    async def burst(self) -> None:
        """Takes a connection and gives it back at once."""
        connection = await self._acquire()
        self._hold(connection)
        self._leave(connection)
        await self.scene.manager.release(connection)

    async def pool_plain(self) -> None:
        pool = self._choose_pool()
        if pool is None:
            return
        self.enter(Stage.ACQUIRE)
        connection = await self.scene.manager.acquire_from_pool(pool, by=self)
        await self._use_and_give_back(
            connection, self.scene.manager.release_to_pool(connection, pool)
        )

    async def pool_block(self) -> None:
        pool = self._choose_pool()
        if pool is None:
            return
        self.enter(Stage.ACQUIRE)
        async with self.scene.manager.acquire_from_pool(pool, by=self) as connection:
            await self._use(connection)

    async def wait(self) -> None:
        """Waits for hosts, not for a connection."""
        manager, roll = self.scene.manager, self.roll
        self.enter(Stage.OTHER)
        self.timeout = roll.choice((0.1, 1.0, 3.0))
        which = roll.randrange(5)
        if which == 0:
            self.goal = lambda: all(host.ready for host in manager.topology)
            await manager.ready(timeout=self.timeout)
        elif which == 1:
            self.goal = lambda: bool(manager.topology.masters)
            await manager.ready(1, 0, timeout=self.timeout)
        elif which == 2:
            await manager.wait_next_pool_check(self.timeout)
        elif which == 3:
            self.goal = lambda: bool(manager.topology.replicas)
            async with asyncio.timeout(self.timeout):
                await manager.wait_replicas_ready(1)
        else:
            self.goal = lambda: bool(manager.topology.masters)
            async with asyncio.timeout(self.timeout):
                await manager.get_pool(False)

    def _choose_pool(self) -> FakePool | None:
        pools = self.scene.manager.pools
        self.pool = self.roll.choice(pools) if pools else None
        return self.pool

    # A connection in hand

    def _hold(self, connection: FakeConnection) -> None:
        took = self.lasts()
        self.enter(Stage.HOLD)
        self.connection = connection
        self._timers.append(self.scene.loop.call_later(PATIENCE, self.cancel))
        self.scene.got(self, connection, took)

    def _leave(self, connection: FakeConnection) -> None:
        self.gave_up = connection.is_closed
        self.scene.left(self, connection)
        self.connection = None
        self.enter(Stage.RELEASE)

    async def _use(self, connection: FakeConnection, *, leave: bool = True) -> None:
        self._hold(connection)
        roll = self.roll
        try:
            for _ in range(roll.randrange(4)):
                dice = roll.random()
                if dice < 0.3:
                    await asyncio.sleep(roll.choice((0.0, 0.01, 0.1, roll.expovariate(2))))
                elif dice < 0.6 and not self.read_only:
                    statement = f"insert {self.name}.{len(self.statements)}"
                    await connection.execute(statement)
                    self.statements.append(statement)
                    self.scene.wrote(self, connection)
                elif dice < 0.98:
                    await connection.execute("select 1")
                else:
                    connection.terminate()
        finally:
            if leave:
                self._leave(connection)

    async def _use_and_give_back(
        self, connection: FakeConnection, release: Awaitable[None]
    ) -> None:
        try:
            await self._use(connection, leave=False)
            if self.scene.plan.commits_at_end:
                await connection.commit()
        except BaseException:
            self._leave(connection)
            # An error of the release would hide this one: that is how Python is.
            with contextlib.suppress(FakeError, ConnectionError):
                await release
            raise
        self._leave(connection)
        await release

    # Cancelling

    def cancel(self, _: object = None) -> None:
        """Once, and not after the end."""
        if self.task is not None and not self.cancelled:
            self.cancelled = self.task.cancel()
            if self.cancelled:
                self.scene.note("{} is cancelled: {}", self.name, self.stage)

    def end(self) -> None:
        """Its task has ended: nobody cancels it any more."""
        for timer in self._timers:
            timer.cancel()

    def prepare(self) -> Awaitable[None]:
        """What its task has to await: cancelled at some moment, or not."""
        way = cast("Callable[[], Any]", getattr(self, self.kind))
        dice = self.roll.random()
        if dice < 0.15:
            moment = self.roll.choice((1, 1, 1, 2, 2, 3, 5, 8)), self.roll.random() < 0.6
            return _cancelled_at(way().__await__(), *moment, self.cancel)
        if dice < 0.3:
            delay = self.roll.choice((0.0, 0.001, 0.002, 0.05, self.roll.uniform(0, 1)))
            self._timers.append(self.scene.loop.call_later(delay, self.cancel))
        return cast("Awaitable[None]", way())


KINDS = (
    "block",
    "block",
    "block",
    "plain",
    "plain",
    "burst",
    "failing_block",
    "early_block",
    "pool_plain",
    "pool_block",
    "wait",
)
POOL_KINDS = ("pool_plain", "pool_block")


@types.coroutine
def _cancelled_at(
    steps: Generator[Any, Any, T], suspension: int, woken: bool, cancel: Callable[..., None]
) -> Generator[Any, Any, T]:
    """Go through ``steps``; ``cancel`` is called at that suspension: at once, or in the very turn
    in which what it waits for comes, before that is taken."""
    result: Any = None
    throw: BaseException | None = None
    try:
        while True:
            pending = steps.send(result) if throw is None else steps.throw(throw)
            suspension -= 1
            if suspension == 0 and woken and pending is not None:
                pending.add_done_callback(cancel)
            elif suspension == 0:
                asyncio.get_running_loop().call_soon(cancel)
            result = throw = None
            try:
                result = yield pending
            except BaseException as exc:
                throw = exc
    except StopIteration as stop:
        return cast(T, stop.value)


EXPECTED = (
    AcquireTimeoutError,
    NotReadyError,
    PoolManagerClosedError,
    FakeError,
    ConnectionError,
    TimeoutError,
)


async def use(scene: Scene, who: str, roll: Random, kind: "type[Operation] | None" = None) -> None:
    """One user's life."""
    kind = kind or Operation
    count = 0
    while not scene.resting:
        await asyncio.sleep(roll.choice((0.0, 0.001, 0.01, roll.expovariate(4))))
        count += 1
        operation = kind(scene, f"{who}.{count}", roll)
        scene.begins(operation)
        task = operation.task = scene.loop.create_task(_run(operation))
        await asyncio.wait([task])
        operation.end()
        scene.over(operation)
        if scene.closed and roll.random() < 0.5:
            return


async def _run(operation: Operation) -> None:
    await operation.prepare()
    operation.is_clean = True
