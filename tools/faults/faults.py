"""The faults: what each does to the cluster, while the contestants work."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyscopg2.testing.cluster import Node

from .arena import Arena
from .figures import Limit, Measure

_UNDECIDED = 1.0
"""Seconds from the loss of a master to the promotion of another."""


@dataclass(slots=True)
class Marks:
    """When and where things happened; seconds of the monotonic clock."""

    fault: float = 0.0
    """As a client that does nothing else sees it, where it can."""
    writable: float | None = None
    """When the new master, or the old one again, accepted writes."""
    old: Node | None = None
    """The master that was replaced."""
    new: Node | None = None
    """Where writes belong now."""
    checks: Mapping[str, float] = field(default_factory=dict[str, float])
    """By login: checks of one host in one `refresh_delay`, of the host with the most."""


Play = Callable[[Arena, Marks, Sequence[str]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    title: str
    play: Play
    outage: Measure
    """What its outage is."""
    limits: tuple[Limit, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of pyscopg2's manager; everything else is by default."""
    through_proxies: bool = False
    load: bool = True
    terminate: bool = True


async def _master_killed(arena: Arena, marks: Marks, _: Sequence[str]) -> None:
    marks.old = arena.cluster.primary
    async with arena.death_of(marks.old) as death:
        await asyncio.to_thread(arena.cluster.kill, marks.old)
        marks.fault = await death
    await asyncio.sleep(_UNDECIDED)
    marks.new = await arena.most_advanced()
    marks.writable = await arena.promote(marks.new)
    await asyncio.sleep(2.5)


async def _master_frozen(arena: Arena, marks: Marks, _: Sequence[str]) -> None:
    marks.old = arena.cluster.primary
    await asyncio.to_thread(arena.cluster.freeze, marks.old)
    marks.fault = time.monotonic()
    await asyncio.sleep(_UNDECIDED)
    marks.new = await arena.most_advanced()
    marks.writable = await arena.promote(marks.new)
    await asyncio.sleep(3.0)
    await asyncio.to_thread(arena.cluster.thaw, marks.old)
    await asyncio.sleep(2.0)


async def _switch_over(arena: Arena, marks: Marks, _: Sequence[str]) -> None:
    marks.old = arena.cluster.primary
    marks.fault = time.monotonic()
    await asyncio.to_thread(arena.cluster.stop, marks.old)
    marks.new = await arena.most_advanced()
    marks.writable = await arena.promote(marks.new)
    await asyncio.to_thread(arena.cluster.rejoin, marks.old)
    await asyncio.sleep(2.0)


async def _restart(arena: Arena, marks: Marks, _: Sequence[str]) -> None:
    marks.new = arena.cluster.primary
    marks.fault = time.monotonic()
    await asyncio.to_thread(arena.cluster.stop, marks.new)
    await asyncio.sleep(1.0)
    marks.writable = await arena.start(marks.new)
    await asyncio.sleep(2.5)


async def _replica_killed(arena: Arena, marks: Marks, _: Sequence[str]) -> None:
    replica = arena.cluster.replicas[0]
    async with arena.death_of(replica) as death:
        await asyncio.to_thread(arena.cluster.kill, replica)
        marks.fault = await death
    await asyncio.sleep(2.5)


async def _replica_frozen(arena: Arena, marks: Marks, _: Sequence[str]) -> None:
    await asyncio.to_thread(arena.cluster.freeze, arena.cluster.replicas[0])
    marks.fault = time.monotonic()
    await asyncio.sleep(6.0)


async def _silence(arena: Arena, marks: Marks, _: Sequence[str]) -> None:
    for proxy in arena.proxies.values():
        proxy.silence()
    marks.fault = time.monotonic()
    await asyncio.sleep(8.0)


async def _split_brain(arena: Arena, marks: Marks, _: Sequence[str]) -> None:
    marks.old = arena.cluster.primary
    marks.new = await arena.most_advanced()
    marks.fault = time.monotonic()
    # The other replica stays with the old master.
    marks.writable = await arena.promote(marks.new, follow=False)
    await asyncio.sleep(2.5)


async def _nothing(_: Arena, marks: Marks, __: Sequence[str]) -> None:
    marks.fault = time.monotonic()


async def _steady(arena: Arena, marks: Marks, roles: Sequence[str]) -> None:
    await asyncio.sleep(1.0)  # past the start
    marks.fault = time.monotonic()
    before = arena.checks()
    window = 5.0
    await asyncio.sleep(window)
    after = arena.checks()
    nodes = arena.cluster.nodes
    marks.checks = {
        # Between n checks there are n - 1 delays.
        role: max(0, *(after.get((role, n), 0) - before.get((role, n), 0) - 1 for n in nodes))
        / window
        for role in roles
    }


FAULTS: Mapping[str, Fault] = {
    "master-killed": Fault(
        "master killed, replica promoted",
        _master_killed,
        Measure.FIRST_WRITE,
        (Limit.of("outage", 0.15),),
    ),
    "master-frozen": Fault(
        "master frozen, replica promoted, old master thaws",
        _master_frozen,
        Measure.FIRST_WRITE,
        (Limit.of("outage", 0.15), Limit.of("longest", 2.5), Limit.of("wrong", 0)),
    ),
    "switch-over": Fault(
        "clean switch-over", _switch_over, Measure.FIRST_WRITE, (Limit.of("wrong", 0),)
    ),
    "restart": Fault(
        "master stopped for a second and started again",
        _restart,
        Measure.FIRST_WRITE,
        (Limit.of("outage", 0.3),),
    ),
    "split-brain": Fault("replica promoted, old master alive", _split_brain, Measure.FIRST_WRITE),
    "replica-killed": Fault(
        "a replica killed", _replica_killed, Measure.READS_SUFFER, (Limit.of("outage", 0.15),)
    ),
    "replica-frozen": Fault(
        "a replica frozen (abandon_timeout=2)",
        _replica_frozen,
        Measure.READS_SUFFER,
        (Limit.of("longest_read", 4.5), Limit.of("hung", 0)),
        options={"abandon_timeout": 2.0},
    ),
    "silent": Fault(
        "all TCP flows die silently, hosts healthy",
        _silence,
        Measure.TWENTY_IN_A_ROW,
        (Limit.of("outage", 6.0),),
        through_proxies=True,
    ),
    "never-closed": Fault(
        "the program ends, and never closed anything",
        _nothing,
        Measure.NONE,
        (Limit.of("exit", 1.0),),
        terminate=False,
    ),
    "steady": Fault(
        "nothing: checks per host and refresh_delay",
        _steady,
        Measure.NONE,
        (Limit.of("checks", 1.0),),
        load=False,
    ),
}
