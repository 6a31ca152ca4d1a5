"""What a run consists of, and what its driver and its users tell; what they are promised."""

import asyncio
import math
from collections import deque

from pyscopg2.base import BasePoolManager
from pyscopg2.core.checkout.slots import Slots
from pyscopg2.core.errors import PoolManagerClosedError
from pyscopg2.core.topology import Role
from pyscopg2.testing.fake import FakeConnection, FakeNetwork, FakePool, FakeQuirks

from .driver import HAIR, SimulationLoop, driver_of
from .history import History, Log
from .oracle import Oracle
from .plan import Plan, dice
from .reader import Reader
from .trace import BrokenInvariant, Trace
from .trouble import Trouble
from .user import EXPECTED, POOL_KINDS, Operation, Stage

DIALS, ASKS = 20, 36
"""A monitor opens fewer connections, and asks fewer questions, per host within a second: one
connect per 200 ms and one check per 50 ms, and as many again for the second try that a check has
when its connection broke, or when it ends a pool; a pool, and a look where the address leads."""


TINY = 1e-6
"""Seconds: what floats lose."""


class WatchedManager(BasePoolManager[FakePool, FakeConnection]):
    """Shows its slots to whoever inspects it."""

    @property
    def slots(self) -> Slots[FakePool]:
        return self._checkouts.slots


class World:
    """One run of one seed: a manager, its hosts and users, and what is known of them."""

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
        driver = driver_of(early=plan.returns_early, reserves=plan.reserves)
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
        self.history = History(self, dice(seed, "wal"), tells_receiver=plan.tells_receiver)
        self.trouble = Trouble(self, dice(seed, "trouble"))
        self.closed = False
        """The manager is, or is being closed."""
        self.resting = False
        """Users begin nothing new."""
        self.operations = 0
        self.ended = False
        """The manager has closed; users of its connections may go on for a while."""
        self.present: dict[str, Operation] = {}
        """Those that are under way."""
        self.holders: dict[FakeConnection, Operation] = {}
        self._broken: BrokenInvariant | None = None
        self._dials: dict[str, deque[float]] = {}
        self._asks: dict[str, deque[float]] = {}
        self.users: list[asyncio.Task[None]] = []

    @property
    def in_trouble(self) -> bool:
        return not self.trouble.over

    @property
    def found(self) -> BrokenInvariant | None:
        """What is broken."""
        return self._broken

    # What the driver tells

    def asked(self, address: str) -> None:
        self.oracle.asked(address)
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
        self.present[operation.name] = operation

    def got(self, operation: Operation, connection: FakeConnection, took: float) -> None:
        """It has been handed this connection in this very step."""
        self.note("{} got {}", operation.name, connection.address)
        other = self.holders.get(connection)
        if other is not None:
            self.broken("one user a connection", f"{operation}: {other} has it")
        self.holders[connection] = operation
        if self.closed:
            self.broken("nothing is handed out after the end", f"{operation}")
        self._judge_role(operation, connection.address)
        if took > operation.allowed + HAIR:
            self.broken("no acquire outlives its deadline", f"{operation}: {took:.4f} s")

    def _judge_role(self, operation: Operation, address: str) -> None:
        host = self.manager.topology[address]
        if operation.kind in POOL_KINDS:
            return
        is_bounded = isinstance(operation, Reader)
        if not host.serving or not (operation.read_only or host.role is Role.MASTER):
            self.broken("roles are those of this moment", f"{operation} got {host}")
        falls_back = operation.falls_back and not self.manager.topology.replicas
        reads_replicas = operation.read_only and operation.masters_too is False
        if host.role is Role.MASTER and reads_replicas and not falls_back and not is_bounded:
            self.broken("a replica for a read", f"{operation} got {host}")
        said = self.oracle.last(address)
        if said is None:
            self.broken("roles are known", f"{operation}: {address} has never answered")
            return
        if self.oracle.is_in_the_air():
            return
        if self.plan.fencing and self.oracle.superseded_by(address) is not None:
            self.broken("newest timeline wins", f"{operation} got {address}, superseded")
        if self.plan.fencing and self.oracle.is_foreign(address):
            self.broken("nothing from another system", f"{operation} got {address}")
        if not operation.read_only and not said.writable:
            self.broken("a master for a write", f"{operation} got {address}: {host}")

    def left(self, operation: Operation, connection: FakeConnection) -> None:
        """It does not use the connection any more, and is about to give it back."""
        if self.holders.get(connection) is operation:
            del self.holders[connection]

    def wrote(self, operation: Operation, connection: FakeConnection) -> None:
        """A statement was executed."""
        if self.oracle.is_in_the_air() or not self.plan.fencing:
            return
        if self.oracle.superseded_by(connection.address) is not None:
            self.broken("no write to a superseded master", f"{operation} on {connection.address}")

    def reads(self, operation: Operation, connection: FakeConnection) -> None:
        """A read with a bound was handed this connection in this very step: what it has to see is
        there, but for what is lost."""
        assert isinstance(operation, Reader)
        topology = self.manager.topology
        there = self.history.log(connection.server)
        clock = topology.clock
        if clock is None:
            written = [r for s in operation.own if (r := self.history.record(s)) is not None]
            asks = any(record.system == topology.system for record in written)
            asks = asks or operation.max_lag is not None
            if asks and topology[connection.address].role is not Role.MASTER:
                self.broken("unknown is never fresh", f"{operation} on {connection.address}")
            return
        named = next(host.address for host in topology if host.clock is clock)
        master = self.history.log(self.network.servers[named])
        known = clock.timeline, clock.system
        if (master.timeline, master.system) != known or self._is_unnoticed(there):
            # The manager does not know yet what became of one of them.
            return
        until = -math.inf
        if operation.max_lag is not None:
            until = self.loop.time() - operation.max_lag
        for record in master.records:
            if record.commit is None or there.shows(record):
                continue
            if record.at < until - TINY:
                age = self.loop.time() - record.at
                text = f"{operation} on {connection.address}: {record.commit}, {age:.4f} s ago"
                self.broken("a bounded read misses nothing", text)
            if record.commit in operation.own:
                text = f"{operation} on {connection.address}: {record.commit}"
                self.broken("reads see what was written before", text)

    def _is_unnoticed(self, log: Log) -> bool:
        """Whether the server may have been replaced without the driver's having noticed."""
        plan = self.plan
        blind = not plan.notices_breaks or self.trouble.silent
        return blind and self.loop.time() - log.rebuilt_at < plan.recovery

    def over(self, operation: Operation) -> None:
        """Its task has ended."""
        task = operation.task
        assert task is not None
        self.present.pop(operation.name, None)
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
        kinds = (*POOL_KINDS, "read_own_write")
        # The pool was retired meanwhile, or the hosts are of another system now.
        retired = isinstance(exc, ValueError) and operation.kind in kinds
        if not isinstance(exc, EXPECTED) and not (retired and operation.stage == Stage.ACQUIRE):
            self.broken("errors are the known ones", f"{operation}: {exc!r}")
        if isinstance(exc, PoolManagerClosedError) and not self.closed:
            self.broken("errors are the known ones", f"{operation}: {exc!r}, and it is open")
        gave_up = isinstance(exc, TimeoutError) and operation.stage == Stage.ACQUIRE
        if gave_up and not self.loop.stalled and operation.lasts() < operation.allowed - HAIR:
            took = f"{operation.lasts():.4f} of {operation.allowed} s"
            self.broken("nobody gives up early", f"{operation}: {took}")
