"""The write-ahead logs of the servers: what is committed, on disk, and replayed by whom.

A real cluster's rules, in small: a primary sends what is on disk; an asynchronous commit gets there
later; a promotion keeps what was received, and begins a timeline; what others had more is lost, and
positions are given a second time.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from pyscopg2.testing.fake import FakeNetwork
from pyscopg2.testing.fake_server import FakeServer, State

from .driver import SimulationLoop

TICK = 0.02
"""Seconds from one step of replication to the next."""

WRITER_DELAY = 0.05
"""``wal_writer_delay``, in seconds: an asynchronous commit is on disk after three of them."""

BEGINNING = 0x3000148

RECORD = 128
"""Bytes. With `BEGINNING`, no record ends where a page's header would."""


@dataclass(eq=False)
class Record:
    """One piece of the log, shared by all who have it."""

    index: int
    """In the log of each of them."""
    commit: str | None
    """The statement that it commits; None: it commits nothing."""
    at: float
    """When, on the loop's clock, in seconds."""
    system: int
    due: float | None
    """When it is on disk at the latest. None: when something after it is."""

    @property
    def lsn(self) -> int:
        """Where it ends."""
        return BEGINNING + RECORD * (self.index + 1)


@dataclass(eq=False)
class Log:
    """One server's."""

    records: list[Record] = field(default_factory=list[Record])
    """All that it has."""
    flushed: int = 0
    """So many of them are on disk: on a standby, all."""
    replayed: int = 0
    """So many of them its readers see: on a primary, all."""
    timeline: int = 1
    system: int = 0
    in_recovery: bool = False
    sends: bool = True
    """It is up."""
    is_paused: bool = False
    """It receives, and replays nothing."""
    is_cut: bool = False
    """It receives nothing."""
    rebuilt_at: float = -1000.0
    """When it was made from another one, or became another cluster's."""

    def has(self, record: Record) -> bool:
        return record.index < len(self.records) and self.records[record.index] is record

    def shows(self, record: Record) -> bool:
        """Whether those who read there see it."""
        return record.index < self.replayed and self.has(record)

    def common(self, other: "Log") -> int:
        """How many records both begin with."""
        count = 0
        for mine, its in zip(self.records, other.records, strict=False):
            if mine is not its:
                break
            count += 1
        return count


class Scene(Protocol):
    """What the history needs of the world."""

    loop: SimulationLoop
    network: FakeNetwork

    def note(self, text: str, *arguments: object) -> None: ...


class Writes(list[str]):
    """What `FakeServer.writes` is here: it tells what is committed."""

    def __init__(self, history: "History", server: FakeServer) -> None:
        super().__init__()
        self._history = history
        self._server = server

    def extend(self, statements: Iterable[str], /) -> None:
        added = list(statements)
        super().extend(added)
        self._history.commit(self._server, added)


class History:
    """Moves the logs on, and has the servers tell of them."""

    def __init__(self, scene: Scene, roll: Random, *, tells_receiver: bool) -> None:
        self._scene = scene
        self._roll = roll
        self._logs: dict[FakeServer, Log] = {}
        self._commits: dict[str, Record] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._is_calm = False
        self._stay: dict[FakeServer, int] = {}
        """Standbys that follow the old timeline still, and the one that they will go over to."""
        for server in scene.network.servers.values():
            server.wal_writer_delay = f"{WRITER_DELAY * 1000:.0f}ms"
            server.tells_receiver = tells_receiver
            server.writes = Writes(self, server)
            self._logs[server] = Log(
                timeline=server.timeline,
                system=server.system_identifier,
                in_recovery=server.in_recovery,
            )
            self._tell(server)

    def log(self, server: FakeServer) -> Log:
        return self._logs[server]

    def record(self, statement: str) -> Record | None:
        """What committed it; None: nothing has."""
        return self._commits.get(statement)

    def start(self) -> None:
        self._timer = self._scene.loop.call_later(TICK, self._tick)

    def stop(self) -> None:
        """For good."""
        if self._timer is not None:
            self._timer.cancel()
        for timer in self._timers:
            timer.cancel()

    def calm(self) -> None:
        """From now on all standbys receive and replay, and follow the timeline that they are to."""
        self._is_calm = True
        self._stay.clear()
        for log in self._logs.values():
            log.is_cut = log.is_paused = False

    # What servers do

    def commit(self, server: FakeServer, statements: Iterable[str]) -> None:
        """At this very moment, on this primary."""
        log = self._logs[server]
        now = self._scene.loop.time()
        for statement in statements:
            is_asynchronous = self._roll.random() < 0.4
            due = now + self._roll.uniform(0, 3 * WRITER_DELAY) if is_asynchronous else now
            record = Record(len(log.records), statement, now, log.system, due)
            log.records.append(record)
            self._commits[statement] = record
            server.snapshot += 1
            if not is_asynchronous:
                log.flushed = len(log.records)
        self._tell(server)

    def follow(self) -> None:
        """Some servers may be something else than they were: whatever happens to a server, this is
        called in the same step."""
        # Primaries first: the others follow them.
        for server in sorted(self._logs, key=lambda server: server.in_recovery):
            self._hold_back(server, self._logs[server])
            self._change(server, self._logs[server])
            self._rebuild(server, self._logs[server])
            self._tell(server)

    def _hold_back(self, server: FakeServer, log: Log) -> None:
        """Some standbys go over to a new timeline later than others."""
        is_standby = log.in_recovery and server.in_recovery
        if not is_standby or log.system != server.system_identifier or self._is_calm:
            self._stay.pop(server, None)
        elif server.timeline > log.timeline and self._roll.random() < 0.5:
            self._stay[server] = server.timeline
            server.timeline = log.timeline
            after = self._roll.uniform(0, 1)
            self._timers.append(self._scene.loop.call_later(after, self._go_over, server))

    def _go_over(self, server: FakeServer) -> None:
        timeline = self._stay.pop(server, 0)
        log = self._logs[server]
        there = {(other.timeline, other.system) for other in self._logs.values()}
        if timeline > server.timeline and server.in_recovery and (timeline, log.system) in there:
            self._scene.note("{} goes over to timeline {}", server.name, timeline)
            server.timeline = timeline
            self._change(server, log)
            self._rebuild(server, log)
            self._tell(server)

    def _change(self, server: FakeServer, log: Log) -> None:
        if server.state is State.DOWN:
            # What was not on disk is gone.
            del log.records[log.flushed :]
            log.replayed = min(log.replayed, log.flushed)
        now = server.timeline, server.system_identifier, server.in_recovery
        if now == (log.timeline, log.system, log.in_recovery):
            return
        was_standby = log.in_recovery
        is_others = log.system != server.system_identifier
        log.timeline, log.system, log.in_recovery = now
        if is_others:
            self._replace(log, [])
        if not server.in_recovery:
            # Promoted, or opened for writes: with what it has received.
            log.replayed = log.flushed = len(log.records)
        elif not was_standby:
            log.replayed = log.flushed = len(log.records)

    def _rebuild(self, server: FakeServer, log: Log) -> None:
        """A standby that has what its primary has not is made anew from that."""
        upstream = self._upstream(log) if log.in_recovery else None
        if upstream is None or upstream.common(log) == len(log.records):
            return
        self._scene.note("{} is made from its primary", server.name)
        self._replace(log, upstream.records[: upstream.flushed])
        server.restart() if server.is_up else server.break_connections()

    def _replace(self, log: Log, records: list[Record]) -> None:
        log.records = list(records)
        log.flushed = log.replayed = len(records)
        log.rebuilt_at = self._scene.loop.time()

    def _upstream(self, log: Log) -> Log | None:
        """The primary's whose timeline it is on."""
        for other in self._logs.values():
            known = other.timeline, other.system, other.in_recovery
            if other is not log and known == (log.timeline, log.system, False):
                return other
        return None

    # Time

    def _tick(self) -> None:
        self._timer = self._scene.loop.call_later(TICK, self._tick)
        now = self._scene.loop.time()
        for server, log in self._logs.items():
            log.sends = server.is_up
            if not log.in_recovery and server.is_up:
                self._write(log, now)
        for server, log in self._logs.items():
            if log.in_recovery and server.is_up:
                self._rebuild(server, log)
                self._trouble(server, log)
                self._replicate(log)
            self._tell(server)

    def _write(self, log: Log, now: float) -> None:
        if self._roll.random() < 0.1:
            # Somebody writes, and does not commit.
            log.records.append(Record(len(log.records), None, now, log.system, None))
        for record in reversed(log.records[log.flushed :]):
            if record.due is not None and record.due <= now + TICK:
                log.flushed = record.index + 1
                break

    def _trouble(self, server: FakeServer, log: Log) -> None:
        dice = self._roll.random()
        if self._is_calm or dice > 0.06:
            return
        if dice < 0.015:
            log.is_paused = True
        elif dice < 0.03:
            log.is_cut = True
        else:
            log.is_cut = log.is_paused = False
        self._scene.note("{}: cut {}, paused {}", server.name, log.is_cut, log.is_paused)

    def _replicate(self, log: Log) -> None:
        upstream = self._upstream(log)
        if upstream is not None and upstream.sends and not log.is_cut:
            log.records += upstream.records[len(log.records) : upstream.flushed]
            log.flushed = len(log.records)
        if not log.is_paused:
            behind = log.flushed - log.replayed
            log.replayed += behind if self._is_calm else self._roll.randint(0, behind)

    def _tell(self, server: FakeServer) -> None:
        """What the server says of its log from now on."""
        log = self._logs[server]
        if log.in_recovery:
            server.lsn = _lsn(log.replayed)
        else:
            log.replayed = len(log.records)
            server.lsn = server.flush_lsn = _lsn(log.flushed)
            server.insert_lsn = _lsn(len(log.records))


def _lsn(count: int) -> str:
    """The end of so many records, as servers write it."""
    lsn = BEGINNING + RECORD * count
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
