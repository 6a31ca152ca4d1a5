"""Each alert is tried by making the thing happen: silent before, firing meanwhile, silent after."""

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from tests.core.conftest import Bench, Manager, manager_on, virtual
from tests.prometheus.alerting import INTERVAL, Rule, Watch, rules
from tests.prometheus.promql import assert_exported, labels_used
from tests.prometheus.scraping import labels_exported

from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.prometheus import PoolCollector
from pyscopg2.testing.fake import FakeAdapter, FakeNetwork
from pyscopg2.testing.fake_server import FULL

BEFORE = 6 * 60.0
"""Seconds of quiet: longer than any alert waits."""

AFTER = 11 * 60.0
"""Seconds after which nothing is left in any rule's range."""

LIMIT = 3600.0
"""Seconds, of virtual time, after which a case that does not end fails."""


@contextlib.asynccontextmanager
async def down(bench: Bench, name: str) -> AsyncGenerator[None]:
    bench[name].down()
    yield
    bench[name].up()


def master_down(bench: Bench) -> AbstractAsyncContextManager[None]:
    return down(bench, "db1")


def replica_down(bench: Bench) -> AbstractAsyncContextManager[None]:
    return down(bench, "db2")


@contextlib.asynccontextmanager
async def failover(bench: Bench) -> AsyncGenerator[None]:
    """It is over, and the old master comes back as a replica."""
    bench.network.failover()
    await bench.until_roles("superseded master replica", 5)
    bench["db1"].demote(bench["db2"])
    bench["db1"].up()
    yield


@contextlib.asynccontextmanager
async def split_brain(bench: Bench) -> AsyncGenerator[None]:
    """The old master stays, while a connection of it is out."""
    async with contextlib.AsyncExitStack() as held:
        with contextlib.suppress(AcquireTimeoutError):
            await held.enter_async_context(bench.manager.acquire())
        bench.network.failover(old_stays=True)
        await bench.until(lambda: bench.role("db2") == "master", 2)
    yield
    bench["db1"].demote(bench["db2"])


@contextlib.asynccontextmanager
async def rival(bench: Bench) -> AsyncGenerator[None]:
    bench["db2"].in_recovery = False
    yield
    bench["db2"].in_recovery = True


@contextlib.asynccontextmanager
async def other_system(bench: Bench) -> AsyncGenerator[None]:
    before = bench["db2"].system_identifier
    bench["db2"].system_identifier = 7
    bench["db2"].break_connections()
    yield
    bench["db2"].system_identifier = before
    bench["db2"].break_connections()


@contextlib.asynccontextmanager
async def late_replay(bench: Bench) -> AsyncGenerator[None]:
    """The master writes, and the replicas replay nothing."""
    async with working(bench, commit):
        yield
    for replica in bench.network.replicas:
        replica.lsn = bench["db1"].lsn


async def commit(bench: Bench) -> None:
    master = bench["db1"]
    assert master.lsn is not None
    master.lsn = f"0/{int(master.lsn.partition('/')[2], 16) + 0x100:X}"
    master.snapshot += 1


@contextlib.asynccontextmanager
async def positions_untold(bench: Bench) -> AsyncGenerator[None]:
    """The login may not know them."""
    for server in bench.network.servers.values():
        server.refuse_rich_probe = "42501"
        server.break_connections()
    yield
    for server in bench.network.servers.values():
        server.refuse_rich_probe = None
        server.break_connections()


@contextlib.asynccontextmanager
async def all_used(bench: Bench) -> AsyncGenerator[None]:
    held = await bench.drain()
    yield
    for connection in held:
        await bench.manager.release(connection)


@contextlib.asynccontextmanager
async def used_up(bench: Bench) -> AsyncGenerator[None]:
    """Acquires time out, since all connections are in use."""
    async with all_used(bench), working(bench, acquire):
        yield


@contextlib.asynccontextmanager
async def replica_wanted(bench: Bench) -> AsyncGenerator[None]:
    """Reads time out, since there is no replica."""
    async with down(bench, "db2"), down(bench, "db3"), working(bench, read):
        yield


@contextlib.asynccontextmanager
async def full(bench: Bench) -> AsyncGenerator[None]:
    """The server has no room for more connections than there are."""
    async with bench.manager.acquire():
        bench["db1"].refuse_connects = FULL
        async with working(bench, acquire):
            yield
        bench["db1"].refuse_connects = None


async def acquire(bench: Bench) -> None:
    with contextlib.suppress(AcquireTimeoutError):
        async with bench.manager.acquire(timeout=0.1):
            pass


async def read(bench: Bench) -> None:
    with contextlib.suppress(AcquireTimeoutError):
        async with bench.manager.acquire_replica(timeout=0.1):
            pass


@contextlib.asynccontextmanager
async def working(bench: Bench, work: Callable[[Bench], Any]) -> AsyncGenerator[None]:
    """Again and again, every second."""

    async def run() -> None:
        while True:
            await work(bench)
            await asyncio.sleep(1)

    task = asyncio.ensure_future(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


Happening: TypeAlias = Callable[[Bench], AbstractAsyncContextManager[None]]


@dataclass
class Case:
    """An alert, what makes it fire, and for which labels."""

    alert: str
    happening: Happening
    labels: list[dict[str, str]] = field(default_factory=lambda: [{}])
    replicas: int = 2
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def __str__(self) -> str:
        return f"{self.alert}-{self.happening.__name__}"


def of_host(name: str, **more: str) -> list[dict[str, str]]:
    return [{"host": f"{name}:5432"} | more]


CASES = [
    Case("NoMaster", master_down),
    Case("SeveralMasters", split_brain, settings={"fencing": False}),
    Case("HostSidelined", split_brain, of_host("db1", role="superseded")),
    Case("HostSidelined", rival, of_host("db2", role="rival")),
    Case("HostSidelined", other_system, of_host("db2", role="foreign")),
    Case("Failover", failover),
    Case("HostOutOfService", replica_down, of_host("db2")),
    Case("HostOutOfService", master_down, of_host("db1")),
    Case("NoReplica", replica_down, replicas=1),
    Case("LagHigh", late_replay, of_host("db2") + of_host("db3")),
    Case("LagUnknown", positions_untold, of_host("db2") + of_host("db3")),
    Case("PoolSaturated", all_used, of_host("db1")),
    Case("AcquireTimeouts", used_up, [{"reason": "busy"}]),
    Case("AcquireTimeouts", replica_wanted, [{"reason": "role"}]),
    Case("ConnectsFail", full, of_host("db1")),
    Case("ChecksFail", replica_down, of_host("db2")),
    Case("ConnectionsTerminated", split_brain, of_host("db1")),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_fires_while_the_thing_happens(case: Case) -> None:
    @virtual
    async def tried() -> None:
        await play(case)

    tried()


async def play(case: Case) -> Watch:
    """What was scraped, and what has fired."""
    name = f"Pyscopg2{case.alert}"
    async with asyncio.timeout(LIMIT), Bench(case.replicas, **case.settings) as bench:
        watch = Watch(PoolCollector(bench.manager))
        wait = watch.rules[name].wait
        async with working(bench, acquire):
            await watch.watch(BEFORE)
            assert watch.alerts == set()
        async with case.happening(bench):
            if wait:
                await watch.watch(wait - INTERVAL)
                assert watch.firing(name) == []
            await watch.watch(6 * INTERVAL)
            assert watch.firing(name) == case.labels
        await watch.watch(AFTER)
        assert watch.firing(name) == []
    return watch


def test_a_stalled_event_loop() -> None:
    """One that does not turn is like one that something blocks."""
    loop = asyncio.new_event_loop()
    manager: Manager = manager_on(FakeAdapter(FakeNetwork.cluster()))
    try:
        collector = PoolCollector(manager, timeout=0)
        watch = Watch(collector)
        watch.look()
        loop.run_until_complete(manager.ready())
        for _ in range(math.ceil(60 / INTERVAL)):
            watch.look()
            assert watch.alerts == set()
        watch.look()
        assert watch.alerts == {"Pyscopg2EventLoopStalled"}
        loop.run_until_complete(manager.terminate())
    finally:
        loop.close()


def test_each_alert_is_tried() -> None:
    tried = {f"Pyscopg2{case.alert}" for case in CASES} | {"Pyscopg2EventLoopStalled"}
    assert tried == {rule.name for rule in rules()}


@virtual
async def test_they_ask_for_what_is_exported() -> None:
    async with Bench() as bench:
        exported = labels_exported(PoolCollector(bench.manager))
    for rule in rules():
        assert_exported(rule.expr, exported)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_what_an_alert_says(rule: Rule) -> None:
    assert rule.labels.keys() == {"severity"}
    assert rule.labels["severity"] in {"warning", "critical"}
    assert rule.annotations.keys() == {"summary", "description"}
    for text in rule.annotations.values():
        assert text.count("{{") == text.count("}}")
        for label in re.findall(r"\$labels\.(\w+)", text):
            assert label in labels_used(rule.expr), label
