# pyright: reportPrivateUsage=false
# What tests have to look at inside, they look at by the helpers of this file.
"""A manager on the fake driver, in virtual time; leaving it asserts that nothing is left.

Test files import what they need from `tests.core.conftest`, which pytest has loaded by then.
"""

import asyncio
import random
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import replace
from typing import Any, Literal, ParamSpec, Self, TypeVar, cast

import hypothesis
import pytest
from tests.support.virtual import now as now
from tests.support.virtual import start as start
from tests.support.virtual import virtual as virtual

from pyscopg2.base import BasePoolManager
from pyscopg2.core.checkout.checkout import OUT
from pyscopg2.core.topology.host_state import Observation
from pyscopg2.testing.fake import (
    FakeAdapter,
    FakeConnection,
    FakeNetwork,
    FakePool,
    FakeQuirks,
    FakeReserved,
    PooledFakeAdapter,
)
from pyscopg2.testing.fake_server import FakeServer

P = ParamSpec("P")
T = TypeVar("T")

# On a busy machine an example may take long; and what was found before is told by no file.
hypothesis.settings.register_profile("patient", deadline=None, database=None)
hypothesis.settings.load_profile("patient")

Manager = BasePoolManager[FakePool, FakeConnection]
ADDRESSES = ("db1:5432", "db2:5432", "db3:5432")


@pytest.fixture(autouse=True)
def same_dice() -> None:
    """Jitter and policies throw dice: the same ones in every run."""
    random.seed(0)


def other_tasks() -> "set[asyncio.Task[Any]]":
    """All tasks but the one that asks."""
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


def manager_on(adapter: PooledFakeAdapter, dsn: str | None = None, **settings: Any) -> Manager:
    """A manager with this adapter, for all hosts of its network unless told otherwise."""
    kind = type("PoolManager", (BasePoolManager,), {"adapter": adapter})
    made: Manager = kind(adapter.network.dsn if dsn is None else dsn, **settings)
    return made


def make(**settings: Any) -> Manager:
    return manager_on(FakeAdapter(FakeNetwork.cluster()), **settings)


class Bench:
    """A network with a master db1 and some replicas db2, db3, …, and a manager on it.

    ``async with`` it: the manager is ready in the body, unless ``ready`` is False, and is
    terminated at the end.
    """

    def __init__(
        self,
        replicas: int = 1,
        *,
        ready: bool = True,
        quirks: FakeQuirks | None = None,
        adapter: type[PooledFakeAdapter] = FakeAdapter,
        size: int = 10,
        **settings: Any,
    ) -> None:
        self.network = FakeNetwork.cluster(replicas)
        self.quirks = quirks or FakeQuirks()
        self.adapter = adapter(self.network, self.quirks)
        settings = {"pool_factory_kwargs": {"max_size": size}} | settings
        self.manager = manager_on(self.adapter, **settings)
        self._ready = ready

    def __getitem__(self, name: str) -> FakeServer:
        """The host ``db1``, ``db2``, …"""
        return self.network[f"{name}:5432"]

    def pool(self, name: str) -> FakePool:
        """The pool that ``db1``, ``db2``, … has now."""
        pool = self.manager.topology[f"{name}:5432"].pool
        assert isinstance(pool, FakePool)
        return pool

    def role(self, name: str) -> str:
        return self.manager.topology[f"{name}:5432"].role.value

    @property
    def roles(self) -> str:
        """Of all hosts, in order: ``master replica unavailable``."""
        return " ".join(host.role.value for host in self.manager.topology)

    async def until(self, reached: Callable[[], bool], within: float) -> float:
        """Wait until something holds, looking every millisecond; returns the seconds it took."""
        began = now()
        while not reached():
            assert now() - began < within, f"not within {within:g} s: {self.manager.topology}"
            await asyncio.sleep(0.001)
        return now() - began

    async def until_roles(self, roles: str, within: float = 1.5) -> float:
        """Until the hosts have these roles, and their pools."""

        def reached() -> bool:
            topology = self.manager.topology
            return self.roles == roles and all(h.ready for h in topology if h.answering)

        return await self.until(reached, within)

    async def drain(self, *, read_only: bool = False) -> list[FakeConnection]:
        """Take every free connection of a role."""
        pools = self.manager.topology.replicas if read_only else self.manager.topology.masters
        free = sum(self.manager.get_pool_freesize(cast(FakePool, host.pool)) for host in pools)
        return [await self.manager.acquire(read_only) for _ in range(free)]

    async def check(self) -> None:
        """Have every host checked anew."""
        await self.manager.wait_next_pool_check()

    async def __aenter__(self) -> Self:
        if self._ready:
            await self.manager.ready()
        return self

    async def __aexit__(self, exc_type: object, *_: object) -> None:
        await self.manager.terminate()
        if exc_type is None:
            self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        """No connection, no pool, no task, no slot in use."""
        self.network.assert_nothing_left()
        assert self.manager.pools == ()


def in_use(manager: Manager) -> int:
    """How many slots for users are taken on all hosts, by the manager's own count."""
    return sum(host_pool.in_use for host_pool in manager._checkouts.slots.host_pools)


def out(manager: Manager) -> list[FakeConnection]:
    """What users have, but for those that the manager has terminated."""
    checkouts = manager._checkouts.out.values()
    return [each.connection for each in checkouts if each.stage is OUT]


def suspect(manager: Manager, address: str) -> None:
    """Make a host suspected, as a connection that broke would."""
    manager._lifecycle.attention.check_soon(address)


def lose(manager: Manager, address: str) -> None:
    """Publish at once that a host does not answer, as its monitor would after a failed check."""
    store = manager._lifecycle.store
    serial = store.next_serial()
    store.publish(Observation(address, serial, at=now(), error=OSError("lost"), reason="lost"))


def demote(manager: Manager, address: str) -> None:
    """Publish at once that a master is in recovery, as its monitor would after its next check."""
    store = manager._lifecycle.store
    host = store.topology[address]
    assert host.answer is not None
    answer = replace(host.answer, read_only=True, in_recovery=True)
    seen = Observation(address, store.next_serial(), at=now(), answer=answer, pool=host.pool)
    store.publish(seen)


def recorded(manager: Manager) -> int:
    """How many connections the manager counts as out, or on their way back."""
    return len(manager._checkouts.out)


def reserved(manager: Manager, address: str) -> FakeConnection:
    """The connection that the host's monitor keeps."""
    kept = manager._lifecycle._monitors[address]._held._reserved
    assert kept is not None
    assert isinstance(kept.connection, FakeReserved)
    return kept.connection.connection


def break_one(connection: FakeConnection) -> None:
    """Break this one connection from the server's side."""
    connection._flow.break_off(ConnectionResetError("connection reset by peer"))


Moment = Literal["waiting", "woken"]
"""When a cancellation comes: while the task waits, or in the very turn in which what it waits for
has come, before the task could take it."""


@types.coroutine
def _cancelled_at(
    steps: Generator[Any, Any, T], suspension: int, moment: Moment
) -> Generator[Any, Any, T]:
    """Go through ``steps``; at that suspension the running task is cancelled."""
    task = asyncio.current_task()
    assert task is not None

    def cancel(_: object = None) -> None:
        task.cancel()

    result: Any = None
    throw: BaseException | None = None
    try:
        while True:
            pending = steps.send(result) if throw is None else steps.throw(throw)
            suspension -= 1
            if suspension == 0 and moment == "woken" and pending is not None:
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


async def cancelled_at(
    work: Coroutine[Any, Any, T], suspension: int, moment: Moment = "waiting"
) -> "asyncio.Task[T]":
    """Run ``work`` in a task of its own, cancelled at its n-th suspension; returns that task
    when it has ended, one way or the other."""

    async def body() -> T:
        return await _cancelled_at(work.__await__(), suspension, moment)

    task = start(body())
    await asyncio.wait([task])
    return task
