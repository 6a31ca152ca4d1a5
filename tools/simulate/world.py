"""One run: a manager, its hosts and users, from a seed to the end; every invariant stands here."""

import asyncio
import contextlib
import gc
import logging
import math
import random
import sys
import warnings
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from pyscopg2.base import BasePoolManager
from pyscopg2.core.errors import PoolManagerClosedError
from pyscopg2.core.places import Places
from pyscopg2.core.spell import Spell
from pyscopg2.core.topology import HostState, Role, Topology
from pyscopg2.testing.fake import FakeConnection, FakeNetwork, FakePool, FakeQuirks
from pyscopg2.testing.fake_server import FakeError, FakeServer

from .driver import EarlyAdapter, Guest, SimulationLoop, WatchedAdapter
from .oracle import Oracle
from .plan import Plan, dice
from .trace import BrokenInvariant, Trace
from .trouble import Trouble
from .user import EXPECTED, POOL_KINDS, Operation, Stage, use

HAIR = 0.005
"""Seconds: a few ticks of the loop's timers, which fire late and never early."""

DIALS, ASKS = 12, 32
"""A monitor opens fewer connections, and asks fewer questions, per host within a second: one
connect per 200 ms and one check per 50 ms, and as many again for the second try that a check has
when its connection broke, or when it ends a spell."""


SPINNING = 10_000
"""Turns of the loop without a pause: somebody asks again and again."""

ROUNDS = 3
"""What is cancelled at the end may begin something else: giving a connection back, for one. Once
more that is cancelled, and once more."""


class WatchedManager(BasePoolManager[FakePool, FakeConnection]):
    """Shows its places to whoever inspects it."""

    @property
    def places(self) -> Places[FakePool]:
        return self._checkouts.places


@dataclass(frozen=True)
class Result:
    """How a run went."""

    seed: int
    steps: int
    """Turns of the event loop, all invariants being looked at after each."""
    operations: int
    seconds: float
    """Of virtual time."""
    broken: BrokenInvariant | None
    trace: Trace

    def without_trace(self) -> "Result":
        return replace(self, trace=Trace())


class World:
    """One run of one seed."""

    def __init__(self, seed: int, loop: SimulationLoop) -> None:
        self.plan = plan = Plan.of(seed)
        self.loop = loop
        self.trace = Trace()
        self.oracle = Oracle()
        self.network = FakeNetwork.cluster(plan.hosts - 1)
        for server in self.network.servers.values():
            server.latency = plan.latency
            server.refuse_rich_probe = None if plan.rich else "42501"
        self.quirks = FakeQuirks(
            cancel_delay=plan.cancel_delay,
            commits_at_end=plan.commits_at_end,
            notices_breaks=plan.notices_breaks,
            terminate_pool_suspends=plan.terminate_pool_suspends,
        )
        driver = EarlyAdapter if plan.returns_early else WatchedAdapter
        self.adapter = driver(self.network, self.quirks, self)
        kind = type("PoolManager", (WatchedManager,), {"adapter": self.adapter})
        self.manager: WatchedManager = kind(
            self.network.dsn,
            acquire_timeout=plan.acquire_timeout,
            refresh_delay=plan.refresh_delay,
            refresh_timeout=plan.refresh_timeout,
            fallback_master=plan.fallback_master,
            master_as_replica_weight=plan.weight,
            balancer_policy=plan.policy,
            pool_factory_kwargs={"min_size": plan.min_size, "max_size": plan.size},
            abandon_timeout=plan.abandon_timeout,
            fencing=plan.fencing,
        )
        self.trouble = Trouble(self, dice(seed, "trouble"))
        self.closed = False
        """The manager is, or is being closed."""
        self.resting = False
        """Users begin nothing new."""
        self.operations = 0
        self._ended = False
        """The manager has closed; users of its connections may go on for a while."""
        self._present: dict[str, Operation] = {}
        """Those that are under way."""
        self._holders: dict[FakeConnection, Operation] = {}
        self._broken: BrokenInvariant | None = None
        self._topology: Topology = self.manager.topology
        self._spells: list[Spell[FakePool]] = []
        self._turns = 0
        """Since time passed."""
        self._looked_at: object = None
        """What the hosts were last looked at with."""
        self._dials: dict[str, deque[float]] = {}
        self._asks: dict[str, deque[float]] = {}
        self._writes: dict[str, int] = {}
        self._users: list[asyncio.Task[None]] = []

    @property
    def in_trouble(self) -> bool:
        return not self.trouble.over

    @property
    def found(self) -> BrokenInvariant | None:
        """What is broken."""
        return self._broken

    # What the driver tells

    def asked(self, address: str) -> None:
        self._count(self._asks, address, ASKS, "asks no host too often")

    def dialled(self, address: str) -> None:
        self._count(self._dials, address, DIALS, "opens no connection too often")

    def answered(self, address: str, answer: object) -> None:
        self.oracle.heard(address, answer)

    def broken(self, name: str, detail: str) -> None:
        if self._broken is None:
            self._broken = BrokenInvariant(name, detail)
            self.note("BROKEN {}: {}", name, detail)

    def note(self, text: str, *arguments: object) -> None:
        self.trace.add(self.loop.time(), text, *arguments)

    def _count(self, times: dict[str, deque[float]], address: str, most: int, name: str) -> None:
        recent = times.setdefault(address, deque(maxlen=most))
        recent.append(self.loop.time())
        if len(recent) == most and recent[-1] - recent[0] < 1 - HAIR:
            self.broken(name, f"{address}: {most} times in {recent[-1] - recent[0]:.3f} s")

    # What users tell

    def begins(self, operation: Operation) -> None:
        self._present[operation.name] = operation

    def got(self, operation: Operation, connection: FakeConnection, took: float) -> None:
        """It has been handed this connection in this very step."""
        self.note("{} got {}", operation.name, connection.address)
        other = self._holders.get(connection)
        if other is not None:
            self.broken("one user a connection", f"{operation}: {other} has it")
        self._holders[connection] = operation
        if self.closed:
            self.broken("nothing is handed out after the end", f"{operation}")
        self._judge_role(operation, connection.address)
        if took > operation.allowed + HAIR:
            self.broken("no acquire outlives its deadline", f"{operation}: {took:.4f} s")

    def _judge_role(self, operation: Operation, address: str) -> None:
        host = self.manager.topology[address]
        if operation.kind in POOL_KINDS:
            return
        if not host.serving or not (operation.read_only or host.role is Role.MASTER):
            self.broken("roles are those of this moment", f"{operation} got {host}")
        falls_back = operation.falls_back and not self.manager.topology.replicas
        reads_replicas = operation.read_only and operation.masters_too is False
        if host.role is Role.MASTER and reads_replicas and not falls_back:
            self.broken("a replica for a read", f"{operation} got {host}")
        said = self.oracle.last(address)
        if said is None:
            self.broken("roles are known", f"{operation}: {address} has never answered")
            return
        if self.oracle.is_in_the_air():
            return
        if self.plan.fencing and self.oracle.superseded_by(address) is not None:
            self.broken("newest timeline wins", f"{operation} got {address}, superseded")
        if not operation.read_only and not said.writable:
            self.broken("a master for a write", f"{operation} got {address}: {host}")

    def left(self, operation: Operation, connection: FakeConnection) -> None:
        """It does not use the connection any more, and is about to give it back."""
        if self._holders.get(connection) is operation:
            del self._holders[connection]

    def wrote(self, operation: Operation, connection: FakeConnection) -> None:
        """A statement was executed."""
        if self.oracle.is_in_the_air() or not self.plan.fencing:
            return
        if self.oracle.superseded_by(connection.address) is not None:
            self.broken("no write to a superseded master", f"{operation} on {connection.address}")

    def over(self, operation: Operation) -> None:
        """Its task has ended."""
        task = operation.task
        assert task is not None
        self._present.pop(operation.name, None)
        self.operations += 1
        exc = None if task.cancelled() else task.exception()
        outcome = "cancelled" if task.cancelled() else type(exc).__name__ if exc else "done"
        self.note("{} ends: {}", operation.name, outcome)
        if operation.cancelled != task.cancelled():
            how = "cancelled" if operation.cancelled else "not cancelled"
            self.broken("a cancellation comes out", f"{operation} was {how}, and ends: {outcome}")
        self._judge_end(operation, exc)
        if operation.connection is not None:
            self.broken("users give back", f"{operation}")
        committed = [w for server in self.network.servers.values() for w in server.writes]
        for statement in operation.statements:
            times = committed.count(statement)
            if operation.is_clean and times != 1:
                self.broken("a clean end is a commit", f"{operation}: {statement} {times} times")
            if times and operation.gave_up and self.plan.commits_at_end:
                self.broken("who was cut off never commits", f"{operation}: {statement}")
        for statement in operation.never:
            if statement in committed:
                self.broken("a block that raised never commits", f"{operation}: {statement}")

    def _judge_end(self, operation: Operation, exc: BaseException | None) -> None:
        if exc is None:
            return
        retired = isinstance(exc, ValueError) and operation.kind in POOL_KINDS
        if not isinstance(exc, EXPECTED) and not (retired and operation.stage == Stage.ACQUIRE):
            self.broken("errors are the known ones", f"{operation}: {exc!r}")
        if isinstance(exc, PoolManagerClosedError) and not self.closed:
            self.broken("errors are the known ones", f"{operation}: {exc!r}, and it is open")
        gave_up = isinstance(exc, TimeoutError) and operation.stage == Stage.ACQUIRE
        if gave_up and not self.loop.stalled and operation.lasts() < operation.allowed - HAIR:
            took = f"{operation.lasts():.4f} of {operation.allowed} s"
            self.broken("nobody gives up early", f"{operation}: {took}")

    # Between two turns of the loop

    def look(self, idle: bool) -> None:
        self.oracle.turn += 1
        self._turns = 0 if idle else self._turns + 1
        if self._turns > SPINNING:
            self.broken("the clock moves on", f"{SPINNING} turns of the loop without a pause")
        topology = self.manager.topology
        if topology is not self._topology or self.closed:
            self._spells = self.manager.places.spells
        if topology is not self._topology:
            self._follow(self._topology, topology)
        for spell in self._spells:
            if not 0 <= spell.in_use <= spell.size or not 0 <= spell.limit <= spell.size:
                self.broken("places add up", f"{spell!r}, limit {spell.limit}")
        if idle and self._broken is None:
            self._look_closely()
        if self._broken is not None:
            raise self._broken

    def _follow(self, before: Topology, after: Topology) -> None:
        self._topology = after
        for old, new in zip(before, after, strict=True):
            if old.role is not new.role:
                self.note("{} is {} (was {})", new.address, new.role.value, old.role.value)
            if old.pool is not None and old.pool is not new.pool:
                self._retire(old, new)

    def _retire(self, old: HostState, new: HostState) -> None:
        assert isinstance(old.pool, FakePool)
        account = self.adapter.accounts.get(old.pool)
        if account is not None and account.ends is None:
            now = self.loop.time()
            answered_at = now if new.answered_at is None else new.answered_at
            account.ends = max(now, answered_at + self.plan.abandon_timeout)

    def _look_closely(self) -> None:
        """Nothing is ready: whatever was handed over has arrived."""
        now = self.loop.time()
        self._look_at_pools(now)
        self._look_at_operations()
        self._look_at_holders()
        if not self.closed:
            self._look_at_hosts()
        if self.oracle.turn % 8 == 0:
            self._look_at_tasks()

    def _look_at_pools(self, now: float) -> None:
        spells = {id(spell.pool): spell for spell in self._spells}
        for account in list(self.adapter.accounts.values()):
            pool = account.pool
            if pool.is_closed and not account.in_use:
                del self.adapter.accounts[pool]
                continue
            spell = spells.get(id(pool))
            if spell is not None:
                if spell.in_use != account.in_use:
                    detail = f"{spell!r}, and the driver has {account.in_use} of them"
                    self.broken("places add up", detail)
            elif self.closed or pool.is_closed:
                pass
            elif account.ends is None:
                age = now - self.loop.stalled - account.began
                if age > 2 * self.plan.refresh_timeout + self.plan.cancel_delay:
                    self.broken("no pool is forgotten", f"{pool!r} never came into service")
            elif now > account.ends + HAIR:
                self.broken("a retired pool ends in time", f"{pool!r}")
            if len(pool.out) + len(pool.idle) + len(pool.returning) > pool.max_size:
                self.broken("connections add up", f"{pool!r}")

    def _look_at_operations(self) -> None:
        for operation in self._present.values():
            if operation.stage == Stage.ACQUIRE:
                self._look_at_acquire(operation)
            elif operation.stage == Stage.RELEASE:
                # Its commit, then its reset, each with a quarter more; and each starts anew where
                # our loop has stood still.
                bound = 2 * 1.25 * self.plan.refresh_timeout
                bound *= 2 if self.loop.stalled > operation.stalled else 1
                if operation.lasts() > bound + HAIR:
                    self.broken("giving back is bounded", f"{operation}")
            elif operation.stage == Stage.OTHER and operation.timeout is not None:
                if operation.lasts() > operation.timeout + HAIR:
                    self.broken("no wait outlives its deadline", f"{operation}")
                if self.closed:
                    self.broken("nobody is left behind at the end", f"{operation}")
                if operation.goal():
                    self.broken("who waits for hosts hears of them", f"{operation}")

    def _look_at_acquire(self, operation: Operation) -> None:
        if operation.lasts() > operation.allowed + HAIR:
            self.broken("no acquire outlives its deadline", f"{operation}")
        if operation.cancelled:
            if operation.connecting is None:
                self.broken("a cancellation comes out", f"{operation} goes on waiting")
            return
        if self.closed:
            self.broken("nobody is left behind at the end", f"{operation}")
            return
        able = self._able(operation)
        pools = [spell.pool for spell in able]
        if operation.connecting is None:
            if free := [spell for spell in able if spell.in_use < spell.limit]:
                self.broken("no place is free while somebody waits", f"{operation}: {free}")
        elif self.plan.cancel_delay == 0 and operation.connecting not in pools:
            address = operation.connecting.address
            self.broken("nobody connects to a host that is lost", f"{operation} to {address}")

    def _able(self, operation: Operation) -> list[Any]:
        """The spells that could serve it: the rules of the design, once more."""
        topology = self.manager.topology
        if operation.kind in POOL_KINDS:
            hosts = [h for h in topology if h.serving and h.pool is operation.pool]
        elif not operation.read_only:
            hosts = [h for h in topology if h.serving and h.role is Role.MASTER]
        else:
            hosts = [h for h in topology if h.serving and h.role is Role.REPLICA]
            masters = [h for h in topology if h.serving and h.role is Role.MASTER]
            connects = operation.connecting is not None
            # It may have gone to a master before there was a replica, or because of the dice.
            maybe = connects and (operation.falls_back or operation.masters_too is None)
            if operation.masters_too or maybe or (not hosts and operation.falls_back):
                hosts += masters
        pools = [host.pool for host in hosts]
        spells = [s for s in self._spells if s.pool in pools]
        if operation.connecting is not None:
            return spells
        able = [spell for spell in spells if not spell.suspended]
        prompt = [spell for spell in able if not spell.overdue]
        # The dice may have said that a prompt master is to be preferred to an overdue replica.
        return prompt if operation.masters_too is None else prompt or able

    def _look_at_holders(self) -> None:
        now = self.loop.time()
        for connection, operation in self._holders.items():
            if connection.is_closed:
                continue
            host = self.manager.topology[connection.address]
            if host.role is Role.SUPERSEDED:
                self.broken("superseded masters are left", f"{operation} on {host}")
            for account in self.adapter.accounts.values():
                over = account.ends is not None and now > account.ends + HAIR
                if over and connection in account.out:
                    self.broken("what hangs is terminated", f"{operation} on {host}")
            if self._ended:
                self.broken("nothing is out after the end", f"{operation} on {host}")

    def _look_at_hosts(self) -> None:
        known = self._topology, self.oracle.version
        if known != self._looked_at:
            self._looked_at = known
            for host in self._topology:
                self._look_at_role(host)
        for address, server in self.network.servers.items():
            if self.trouble.is_settled(server):
                self._look_at_settled(self._topology[address], server)

    def _is_superseded(self, address: str) -> bool:
        return self.plan.fencing and self.oracle.superseded_by(address) is not None

    def _look_at_role(self, host: HostState) -> None:
        said, superseded = self.oracle.last(host.address), self._is_superseded(host.address)
        right = {
            Role.MASTER: said is not None and said.writable and not superseded,
            Role.REPLICA: said is not None and not said.writable and not superseded,
            Role.SUPERSEDED: superseded,
        }
        if not right.get(host.role, True):
            self.broken("roles are those last answered", f"{host}: {said}")
        if host.role in (Role.UNAVAILABLE, Role.SUPERSEDED) and host.serving:
            self.broken("who is lost does not serve", f"{host}")

    def _look_at_settled(self, host: HostState, server: FakeServer) -> None:
        truth = Role.REPLICA if server.transaction_read_only else Role.MASTER
        if host.role is truth:
            return
        if truth is Role.MASTER and self._is_superseded(host.address):
            truth = Role.SUPERSEDED
        if host.role is not truth:
            self.broken("who is well is known", f"{server!r}, and {host}")

    def _look_at_tasks(self) -> None:
        # Each host: its monitor, checks that the driver is slow to give up, their remains. Each
        # place: its way back, or its end.
        hosts, plan = self.plan.hosts, self.plan
        checks = 6 + 2 * math.ceil(plan.cancel_delay / plan.refresh_timeout)
        pools = len(self.adapter.accounts) + hosts
        most = hosts * checks + 2 * pools * (plan.size + 1)
        mine = len(self._present) + len(self._users) + 3
        if (count := len(asyncio.all_tasks(self.loop))) > most + mine:
            self.broken("tasks are bounded", f"{count}, of which {mine} are the users'")

    # The story

    async def run(self) -> None:
        """From the first use to the end."""
        plan = self.plan
        self.note("{}", plan)
        for number in range(1, plan.users + 1):
            roll = dice(plan.seed, f"user {number}")
            self._users.append(self.loop.create_task(use(self, number, roll)))
        trouble = self.loop.create_task(self.trouble.run())
        if plan.amid:
            await asyncio.sleep(dice(plan.seed, "amid").uniform(0, plan.trouble))
        else:
            await trouble
            await self._recover()
        await self._end()
        self.resting = True
        if not trouble.done():
            trouble.cancel()
            self.trouble.heal()
        await self._leave_nothing()

    async def _recover(self) -> None:
        servers = self.network.servers.values()
        while not all(map(self.trouble.is_settled, servers)):
            await asyncio.sleep(0.05)
        for operation in self._present.values():
            waits = operation.stage == Stage.ACQUIRE and not operation.connecting
            if waits and operation.lasts() > 2 * self.plan.recovery and self._able(operation):
                self.broken("when all is well, who waits is served", f"{operation}")
        self.resting = True
        await asyncio.wait(self._users)
        self.note("all users have gone")
        await self._take_all()
        await self._be_quiet()

    async def _take_all(self) -> None:
        """Every place can be had, on every host, at once."""
        plan, began = self.plan, self.loop.time()
        await asyncio.sleep(plan.refresh_delay * 1.2 + plan.refresh_timeout)
        manager = self.manager
        if len(manager.pools) != plan.hosts:
            self.broken("who is well is known", f"{manager.topology}")
            return
        took = [
            asyncio.ensure_future(manager.acquire_from_pool(pool, by=Guest()))
            for pool in manager.pools
            for _ in range(plan.size)
        ]
        began = self.loop.time()
        done, late = await asyncio.wait(took, timeout=10 * plan.latency)
        failed = [task for task in done if task.exception() is not None]
        if late or failed:
            spells = [f"{spell!r}, limit {spell.limit}" for spell in manager.places.spells]
            self.broken("every place can be had", f"{len(late)}, {failed}: {spells}")
            return
        self.note("all places taken in {:.4f} s", self.loop.time() - began)
        for task in took:
            try:
                await manager.release(task.result())
            except FakeError:
                # Opened before the last trouble, and this driver does not look, or in vain.
                if plan.notices_breaks and not self.trouble.silent:
                    raise
        for read_only in (False, True)[: plan.hosts]:
            async with asyncio.timeout(10 * plan.latency):
                await manager.release(await manager.acquire(read_only, by=Guest()))

    async def _be_quiet(self) -> None:
        """Nothing happens: a check per host and refresh delay, and nothing else."""
        plan, count = self.plan, 4
        await asyncio.sleep(2 * plan.refresh_delay + 0.3)
        before = {s: (s.queries, s.connects) for s in self.network.servers.values()}
        await asyncio.sleep(count * plan.refresh_delay)
        for server, (queries, connects) in before.items():
            if server.queries - queries > (count + 1) * (1 if plan.rich else 2):
                asked = f"{server.queries - queries} in {count} refresh delays"
                self.broken("a check per refresh delay", f"{server}: {asked}")
            if server.connects != connects:
                self.broken("no connect while all is well", f"{server}")
        for spell in self.manager.places.spells:
            if spell.in_use or spell.suspended or spell.overdue or spell.limit != spell.size:
                self.broken("all is as new", f"{spell!r}, limit {spell.limit}")
        tasks = len(asyncio.all_tasks()) - 1
        if tasks > 2 * plan.hosts:
            self.broken("tasks are bounded", f"{tasks} while nothing happens")

    async def _end(self) -> None:
        plan, manager = self.plan, self.manager
        self.note("the end: {}", plan.ending)
        if plan.ending == "nobody closes":
            return
        roll = dice(plan.seed, "end")
        wait = roll.choice((0.0, 0.1, 1.0))
        held: list[FakeConnection] = []
        if plan.ending == "close while some are out" and not plan.amid:
            held = [await manager.acquire(by=Guest()) for _ in range(plan.size)]
        began, stalled = self.loop.time(), self.loop.stalled
        if plan.ending in ("close", "close while some are out"):
            await self._close(wait)
        elif plan.ending == "close twice":
            await asyncio.gather(self._close(wait), self._close(wait))
            await self._close(10)
        elif plan.ending == "close, then terminate":
            first = self.loop.create_task(self._close(100))
            await asyncio.sleep(wait)
            await manager.terminate()
            await first
        elif plan.ending == "close, cancelled":
            first = self.loop.create_task(self._close(100))
            await asyncio.sleep(wait)
            if first.cancel():
                await asyncio.wait([first])
                if not first.cancelled():
                    self.broken("a cancellation comes out", "of close()")
        elif plan.ending == "terminate":
            self.closed = True
            await manager.terminate()
        else:
            failure = KeyError() if plan.ending == "leave the block with an error" else None
            wait = 10.0 if failure is None else 0.0
            try:
                async with manager:
                    self.closed = True
                    if failure is not None:
                        raise failure
            except KeyError:
                pass
        stood_still = self.loop.stalled - stalled
        took = self.loop.time() - began - stood_still
        self._ended = True
        self.note("closed in {:.4f} s", took)
        # A pool that does not close within the refresh timeout is terminated after it; a stall
        # takes nobody the time to end.
        spans = (2 if wait else 1) * (2 if stood_still else 1)
        if took > wait + spans * plan.refresh_timeout + HAIR:
            self.broken("the end is bounded", f"{plan.ending}: {took:.4f} s, waiting {wait} s")
        for connection in held:
            if not connection.is_closed:
                self.broken("nothing is out after the end", f"{connection!r}")
            with contextlib.suppress(FakeError):
                await manager.release(connection)

    async def _close(self, timeout: float) -> None:
        self.closed = True
        await self.manager.close(timeout)

    async def _leave_nothing(self) -> None:
        plan = self.plan
        if plan.ending == "nobody closes":
            return
        grace = plan.cancel_delay + 2 * plan.refresh_timeout + 1
        if users := [user for user in self._users if not user.done()]:
            await asyncio.wait(users, timeout=grace + 30)
        if stuck := [str(operation) for operation in self._present.values()]:
            self.broken("nobody is left behind at the end", ", ".join(stuck))
        await asyncio.sleep(grace)
        if self.network.leftovers:
            self.broken("nothing is left", ", ".join(self.network.leftovers))
        if tasks := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
            self.broken("nothing is left", ", ".join(map(repr, tasks)))
        if timers := self.loop.timers():
            self.broken("nothing is left", ", ".join(map(repr, timers)))


def simulate(seed: int) -> Result:
    """One run; the same one for the same seed, in any process."""
    random.seed(seed)
    level = logging.getLogger("pyscopg2").level
    logging.getLogger("pyscopg2").setLevel(logging.CRITICAL + 1)
    loop = SimulationLoop()
    world = World(seed, loop)
    unheard: list[str] = []
    loop.set_exception_handler(lambda _, context: unheard.append(str(context)))
    broken: BrokenInvariant | None = None
    try:
        asyncio.set_event_loop(loop)
        loop.watch(world.look)
        try:
            loop.run_until_complete(world.run())
            broken = world.found or _stop(world, loop)
        except BrokenInvariant as exc:
            broken = exc
            loop.watch(None)
        except Exception as exc:
            broken = BrokenInvariant("the manager does as it is asked", repr(exc))
            loop.watch(None)
        if broken is None:
            gc.collect(1)
            if unheard:
                broken = BrokenInvariant("nobody's errors go unheard", unheard[0])
        else:
            _bury(loop)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        logging.getLogger("pyscopg2").setLevel(level)
    result = Result(seed, world.oracle.turn, world.operations, loop.time(), broken, world.trace)
    if broken is not None:
        del world
        broken.with_traceback(None)
        _forget()
    return result


def _ignore(_: object) -> None:
    pass


def _forget() -> None:
    """What never ended must not end in the midst of another run."""
    hook, sys.unraisablehook = sys.unraisablehook, _ignore
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    finally:
        sys.unraisablehook = hook


def _stop(world: World, loop: SimulationLoop) -> BrokenInvariant | None:
    """As `asyncio.run` does at its end: all that is left is cancelled, and has to end at once."""
    loop.watch(None)
    began = loop.time()
    for _ in range(ROUNDS):
        tasks = asyncio.all_tasks(loop)
        for task in sorted(tasks, key=_number):
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=60))
    if late := asyncio.all_tasks(loop):
        return BrokenInvariant("a program ends when it ends", f"not so {late}")
    took = loop.time() - began
    # Users give back what they have; the manager itself waits for nothing.
    if took > world.plan.cancel_delay + 2 * world.plan.refresh_timeout + HAIR:
        return BrokenInvariant("a program ends when it ends", f"after {took:.4f} s")
    return None


def _number(task: asyncio.Task[Any]) -> tuple[int, str]:
    """A key that puts tasks into the order of their names."""
    return len(task.get_name()), task.get_name()


def _bury(loop: SimulationLoop) -> None:
    """After a broken invariant: end what ends, for a while."""
    loop.call_soon(loop.stop)
    loop.run_forever()  # where it was about to stop, it has stopped now
    for _ in range(ROUNDS):
        if tasks := asyncio.all_tasks(loop):
            for task in sorted(tasks, key=_number):
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks, timeout=5))
