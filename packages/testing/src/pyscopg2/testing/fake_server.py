"""A scripted PostgreSQL host, in memory: tests turn its knobs while a manager uses it."""

import asyncio
import enum
import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

from pyscopg2.core.wal import parse_lsn

FULL = "53300"
STARTING = "57P03"
WRONG_PASSWORD = "28P01"
UNKNOWN_DATABASE = "3D000"

WRITING = ("insert", "update", "delete", "merge", "truncate", "create", "drop", "alter", "write")

SEGMENT_SIZE = 16 * 1024 * 1024
"""Bytes of a segment of the write-ahead log."""

_MESSAGES = {
    FULL: "sorry, too many clients already",
    STARTING: "the database system is starting up",
    WRONG_PASSWORD: "password authentication failed",
    UNKNOWN_DATABASE: "database does not exist",
    "08003": "the connection is closed",
    "25006": "cannot execute this in a read-only transaction",
    "42501": "permission denied for function",
    "42883": "function does not exist",
    "57P01": "terminating connection due to administrator command",
}


class FakeError(Exception):
    """The fake driver's error. Its own ones have no ``sqlstate``, but for a closed connection's.

    That one is 08003, as asyncpg has it.
    """

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate

    @classmethod
    def of(cls, sqlstate: str) -> "FakeError":
        """The error with this SQLSTATE, and the server's message for it."""
        return cls(_MESSAGES.get(sqlstate, "the server refused"), sqlstate)


class State(enum.Enum):
    """How a host answers: at all, with a refusal, or never."""

    UP = "up"
    DOWN = "down"
    FROZEN = "frozen"


class LogEntry(NamedTuple):
    """Something that was sent to a host, and when, by the loop's clock."""

    time: float
    text: str


@dataclass(eq=False)
class FakeServer:
    """One host and the script it follows. Every field may be set at any time.

    A request that is on its way is answered ``latency`` seconds after it was sent, by what the
    script says at that time. The default is not 0, so that code that asks in a tight loop does
    not stop the clock.
    """

    name: str = "db"
    in_recovery: bool = False
    """A standby. Setting it keeps the connections, as behind a proxy; `demote` breaks them."""
    read_only: bool = False
    """``default_transaction_read_only`` of a primary, in its own configuration."""
    login_is_read_only: bool = False
    """The same, set for the login."""
    timeline_told: int | None = None
    """What a standby tells of its timeline, where that is an older one than it is on."""
    latency: float = 0.001
    timeline: int = 1
    system_identifier: int = 7412345678901234567
    lsn: str | None = "0/3000148"
    """Written by a primary, replayed by a standby."""
    insert_lsn: str | None = None
    """Of a primary; None: the same as `lsn`."""
    flush_lsn: str | None = None
    """Of a primary; None: the same as `lsn`."""
    snapshot: int = 0
    """Another number stands for other transactions that are done."""
    wal_writer_delay: str = "200ms"
    tells_receiver: bool = True
    """A standby tells which timeline it receives: the login may know."""
    refuse_connects: str | None = None
    """SQLSTATE of every connect: `FULL`, `STARTING`, `WRONG_PASSWORD`, `UNKNOWN_DATABASE`, …"""
    refuse_connects_after: int | None = None
    """So many connections may be open; more are refused, as `FULL`. None: no limit."""
    round_trips: int = 1
    """That a connect takes."""
    address: str | None = None
    """What it knows as its own, as ``host:port``; None: it does not tell."""
    silent_to_connects: bool = False
    """New connects get no answer until `up`, as behind a firewall that drops them; the connections
    that are open live on."""
    refuse_rich_probe: str | None = None
    """SQLSTATE of every query that asks for more than ``SHOW transaction_read_only``."""
    commits_unheard: int = 0
    """So many commits are done, and their connection breaks before it hears of that."""
    refuse_evidence: str | None = None
    """SQLSTATE of every query that asks for the number of the transaction."""
    counts_since: int = 1
    """Since when it counts its statistics: another number says that it has crashed since."""
    answers: dict[str, object] = field(default_factory=dict[str, object])
    """What a query returns, by its very text; an exception is raised. All others return 1."""

    writes: list[str] = field(default_factory=list[str], init=False)
    """The writing statements that were executed, and committed where that is needed, in order."""
    transactions: dict[int, str] = field(default_factory=dict[int, str], init=False)
    """What became of each that has a number: ``in progress``, ``committed`` or ``aborted``."""
    connects: int = field(default=0, init=False)
    """Connects that were tried."""
    queries: int = field(default=0, init=False)
    """Queries that were sent, answered or not; resets, commits and rollbacks don't count."""
    log: list[LogEntry] = field(default_factory=list[LogEntry], init=False)
    """All that was sent: ``connect``, ``reset``, ``commit``, ``rollback``, ``close`` or the SQL."""
    state: State = field(default=State.UP, init=False)
    started_at: int = field(default_factory=itertools.count(1).__next__, init=False)
    """Of its postmaster, in microseconds: no two have the same."""
    flows: "dict[FakeFlow, None]" = field(default_factory=dict["FakeFlow", None], init=False)
    """The clients' connections, also those that are still being opened; in order."""

    def __repr__(self) -> str:
        role = "replica" if self.in_recovery else "master"
        return f"<FakeServer {self.name} {self.state.value} {role} timeline={self.timeline}>"

    @property
    def is_up(self) -> bool:
        """Whether the host answers: neither down nor frozen."""
        return self.state is State.UP

    @property
    def backends(self) -> int:
        """How many connections are open now."""
        return sum(flow.is_established for flow in self.flows)

    @property
    def transaction_read_only(self) -> bool:
        """Whether writes fail."""
        return self.in_recovery or self.read_only or self.login_is_read_only

    def up(self) -> None:
        """Accept connects and answer again, whatever was wrong."""
        self.state = State.UP
        self.silent_to_connects = False
        for flow in self.flows:
            flow.resume()

    def down(self) -> None:
        """Die: connects are refused, connections break."""
        self.state = State.DOWN
        self.break_connections()

    def freeze(self) -> None:
        """Answer nothing more: connects and queries hang until `thaw`, and nothing breaks."""
        self.state = State.FROZEN

    def thaw(self) -> None:
        """Answer all that came since `freeze`. Does nothing on a host that is not frozen."""
        if self.state is State.FROZEN:
            self.up()

    def restart(self) -> None:
        """Shut down in an orderly way (SQLSTATE 57P01 to every client) and be up again."""
        self.break_connections(FakeError.of("57P01"))
        self.up()

    def promote(self) -> None:
        """Leave recovery, on the next timeline. Connections live on."""
        if not self.in_recovery:
            raise ValueError(f"{self!r} is not in recovery")
        self.in_recovery = False
        self.timeline += 1

    def demote(self, follows: "FakeServer | None" = None) -> None:
        """Become a standby, of ``follows`` where given; connections break, as by a restart.

        A host that is down or frozen stays so.
        """
        self.in_recovery = True
        if follows is not None:
            self.timeline = follows.timeline
            self.system_identifier = follows.system_identifier
            self.lsn = follows.lsn
        self.break_connections(FakeError.of("57P01"))

    def break_connections(self, error: Exception | None = None) -> None:
        """Break every connection, those being opened included; by a TCP reset unless told."""
        for flow in list(self.flows):
            flow.break_off(error or ConnectionResetError(f"{self.name}: connection reset by peer"))

    def cut_flows(self) -> None:
        """Let nothing pass on the connections of now, for ever and without a word.

        Neither `thaw` nor `down` reaches them; new connections work.
        """
        for flow in self.flows:
            flow.is_cut = True

    async def connect(self, cancel_delay: float = 0.0) -> "FakeFlow":
        """Open a connection, or fail as the script says. Leaves nothing open when it fails."""
        self.connects += 1
        flow = FakeFlow(self)
        self.flows[flow] = None
        try:
            for _ in range(self.round_trips):
                await flow.round_trip("connect", cancel_delay)
            if self.state is State.DOWN:
                raise ConnectionRefusedError(f"{self.name}: connection refused")
            if self.refuse_connects is not None:
                raise FakeError.of(self.refuse_connects)
            most = self.refuse_connects_after
            if most is not None and self.backends >= most:
                raise FakeError.of(FULL)
        except BaseException:
            flow.close()
            raise
        flow.is_established = True
        return flow

    def answer(self, query: str) -> object:
        """What this host answers now; `FakeError` is what a server would send."""
        text = query.strip().lower()
        if text.startswith("show transaction_read_only"):
            return "on" if self.transaction_read_only else "off"
        if "pg_is_in_recovery" in text:
            if self.refuse_rich_probe is not None:
                raise FakeError.of(self.refuse_rich_probe)
            return self._position() if "'standby'" in text else self._rich_answer()
        if "pg_xact_status" in text:
            return self._status(query)
        if is_write(query) and self.transaction_read_only:
            raise FakeError.of("25006")
        answer = self.answers.get(query, 1)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def life(self) -> str:
        """What says in which of its lives it is, as the evidence query asks for it."""
        return f"{self.system_identifier} {self.timeline} {self.started_at} {self.counts_since}"

    def begin(self) -> int:
        """Give a transaction its number."""
        xid = 700 + len(self.transactions)
        self.transactions[xid] = "in progress"
        return xid

    def evidence(self, xid: int | None) -> str:
        """The answer to the evidence query, in the transaction with this number."""
        if self.refuse_evidence is not None:
            raise FakeError.of(self.refuse_evidence)
        return f"{'-' if xid is None else xid} {self.life()}"

    def _status(self, query: str) -> str:
        """The answer to the status query."""
        xid = int(query.partition("xid8 '")[2].partition("'")[0])
        return f"{self.transactions.get(xid, 'in progress').replace(' ', '-')} {self.life()}"

    def _rich_answer(self) -> str:
        setting = "server" if self.read_only else "login" if self.login_is_read_only else "off"
        told = self.timeline if self.timeline_told is None else self.timeline_told
        fields = (
            "t" if self.in_recovery else "f",
            "off" if self.in_recovery else setting,
            self.lsn or "-",
            str(told if self.in_recovery else self.timeline),
            str(self.system_identifier),
            str(self.started_at),
            self.address or "-",
            self._standby_state() if self.in_recovery else self._wal_state(),
        )
        return " ".join(fields)

    def _position(self) -> str:
        """The answer to the position query."""
        if self.in_recovery:
            return "standby"
        insert, offset, block_size, *_ = self._wal_state().split(",")
        return f"{self.system_identifier} {self.timeline:08X} {insert} {offset} {block_size}"

    def _standby_state(self) -> str:
        return str(self.timeline) if self.tells_receiver else "-"

    def _wal_state(self) -> str:
        written = self.lsn or "0/0"
        insert = self.insert_lsn or written
        offset = parse_lsn(insert) % SEGMENT_SIZE
        flush = self.flush_lsn or written
        return f"{insert},{offset},8192,{flush},{self.snapshot},{self.wal_writer_delay}"


def is_write(query: str) -> bool:
    """Whether the fake takes this statement for a writing one: by its first word, `WRITING`."""
    return query.strip().lower().startswith(WRITING)


class FakeFlow:
    """One TCP connection between a client and a `FakeServer`, as the client sees it."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.number = server.connects
        self.is_established = False
        self.is_cut = False
        self.is_closed = False
        self._news: Exception | None = None
        self._wake: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<FakeFlow {self.number} to {self.server.name}>"

    @property
    def is_silent(self) -> bool:
        """Whether nothing comes from the other side."""
        dropped = self.server.silent_to_connects and not self.is_established
        return self.is_cut or dropped or self.server.state is State.FROZEN

    async def round_trip(self, text: str, cancel_delay: float = 0.0) -> None:
        """Send ``text`` and wait for the answer: it always suspends.

        A cancellation takes ``cancel_delay`` seconds while the server is silent. `close` and
        `break_off` end it at once. What the server answers, the caller asks it right after.

        `FakeError`: the connection is closed (SQLSTATE 08003), or another operation is pending.
        `ConnectionResetError` or `FakeError`: what it broke with, told once.
        """
        self._raise_if_closed()
        if self._wake is not None:
            raise FakeError("another operation is in progress on this connection")
        loop = asyncio.get_running_loop()
        self.server.log.append(LogEntry(loop.time(), text))
        self._wake = loop.create_future()
        try:
            self.resume()
            await self._wake
        except asyncio.CancelledError:
            if cancel_delay and self.is_silent and not self.is_closed:
                self._cancel_timer()
                self._wake = loop.create_future()
                self._timer = loop.call_later(cancel_delay, self._wake_up)
                await self._wake
            raise
        finally:
            self._wake = None
            self._cancel_timer()
        self._raise_if_closed()

    def resume(self) -> None:
        """Let the server answer what is pending, unless it is silent."""
        if self._wake is not None and not self.is_silent:
            self._cancel_timer()
            loop = self._wake.get_loop()
            self._timer = loop.call_later(self.server.latency, self._arrive)

    def close(self) -> None:
        """Close it from the client's side: what is pending fails at once, and all that follows."""
        if not self.is_closed:
            self.is_closed = True
            self.server.flows.pop(self, None)
            self._wake_up()

    def break_off(self, error: Exception) -> None:
        """Close it from the server's side; ``error`` is what the client hears of it, once."""
        if not self.is_cut:
            self._news = error
            self.close()

    def _arrive(self) -> None:
        if not self.is_silent:
            self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _raise_if_closed(self) -> None:
        if self.is_closed:
            error, self._news = self._news, None
            raise error or FakeError.of("08003")
