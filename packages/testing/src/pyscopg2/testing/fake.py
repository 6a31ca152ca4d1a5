"""A fake driver, and the network of scripted hosts that it connects to.

Without sockets, threads, randomness and wall time: on a `VirtualTimeLoop` every run is the same.
"""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from pyscopg2.core.adapter import Adapter, Reserves, RunsTransactions, TellsLoss, TellsRecovery
from pyscopg2.core.dsn import Target
from pyscopg2.testing.fake_server import FakeError, FakeFlow, FakeServer, is_write


@dataclass
class FakeQuirks:
    """How the fake driver behaves, as the real ones do. May be changed at any time."""

    cancel_delay: float = 0.0
    """Seconds that a cancelled connect or query takes to end, while its host is silent.

    psycopg: 11, SQLAlchemy: 3. `terminate_connection` ends it at once all the same.
    """
    commits_at_end: bool = False
    """Statements open a transaction, and the end of a block commits it, as psycopg's does."""
    notices_breaks: bool = True
    """A connection that the server closed is known as closed at once (asyncpg), or only after
    something on it failed (psycopg)."""
    release_hangs: bool = False
    """A release gets no answer, though the host is well, until its connection is terminated."""
    terminate_pool_suspends: bool = False
    """`terminate_pool` lets the loop run once before it does anything."""


class FakeConnection:
    """The fake driver's connection: what a user gets from `acquire`."""

    def __init__(self, flow: FakeFlow, address: str, quirks: FakeQuirks) -> None:
        self.address = address
        self.server = flow.server
        self.is_in_transaction = False
        self.in_recovery: bool | None = None
        """What the server has told by itself, with its last answer."""
        self._flow = flow
        self._quirks = quirks
        self._uncommitted: list[str] = []
        self._is_in_block = False
        self._xid: int | None = None
        self._noticed = False

    def __repr__(self) -> str:
        closed = " closed" if self.is_closed else ""
        return f"<FakeConnection {self._flow.number} to {self.address}{closed}>"

    @property
    def is_closed(self) -> bool:
        """Whether the driver knows that the connection is closed."""
        return self._flow.is_closed and (self._noticed or self._quirks.notices_breaks)

    async def execute(self, query: str) -> object:
        """What the host answers. A writing statement (``insert …``) ends in `FakeServer.writes`.

        With `FakeQuirks.commits_at_end` it opens a transaction, and a write ends there only by
        `commit`. `FakeError`: the host refused (25006: read-only), or the connection is closed
        (08003). `ConnectionResetError`: the connection broke.
        """
        self.is_in_transaction = self._is_in_block or self._quirks.commits_at_end
        answer = await self.fetch_scalar(query)
        if is_write(query):
            if self._xid is None:
                self._xid = self.server.begin()
            self._uncommitted.append(query)
        if not self.is_in_transaction:
            self._apply()
        return answer

    async def fetch_scalar(self, query: str) -> object:
        """The host's answer to one query. Opens no transaction; errors as `execute`."""
        self.server.queries += 1
        await self._ask(query)
        if "pg_current_xact_id_if_assigned" in query:
            return self.server.evidence(self._xid)
        return self.server.answer(query)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        """Begin one; commit it with the end of the block, or roll it back. Errors as `execute`."""
        await self._ask("begin")
        self._is_in_block = self.is_in_transaction = True
        try:
            yield
        except BaseException:
            await self.rollback()
            raise
        await self.commit()

    async def commit(self) -> None:
        """Commit what `execute` did; `FakeError`: the connection is closed."""
        if self.is_in_transaction or self._flow.is_closed:
            await self._ask("commit")
            self._apply()
            if self.server.commits_unheard:
                self.server.commits_unheard -= 1
                self._flow.break_off(ConnectionResetError(f"{self.server.name}: connection reset"))
                await self._ask("commit")

    async def rollback(self) -> None:
        """Forget what `execute` did; `FakeError`: the connection is closed."""
        if self.is_in_transaction or self._flow.is_closed:
            await self._ask("rollback")
            self._forget()

    async def reset(self) -> None:
        """Make the connection fit for the next user: one round trip."""
        if self._quirks.release_hangs:
            self._flow.is_cut = True
        await self._ask("reset")
        self._forget()

    async def close(self) -> None:
        """Say goodbye to the server, and wait for its answer."""
        try:
            await self._ask("close")
        finally:
            self.terminate()

    def terminate(self) -> None:
        """Cut the connection off. What is pending on it fails at once (SQLSTATE 08003)."""
        self._noticed = True
        self._flow.close()
        self._forget()

    async def _ask(self, text: str) -> None:
        try:
            await self._flow.round_trip(text, self._quirks.cancel_delay)
            self.in_recovery = self.server.in_recovery
        finally:
            self._noticed = self._flow.is_closed

    def _apply(self) -> None:
        self.server.writes.extend(self._uncommitted)
        if self._xid is not None:
            self.server.transactions[self._xid] = "committed"
        self._xid = None
        self._forget()

    def _forget(self) -> None:
        self._uncommitted.clear()
        if self._xid is not None:
            self.server.transactions[self._xid] = "aborted"
        self._xid = None
        self._is_in_block = False
        self.is_in_transaction = False


class FakePool:
    """The fake driver's pool: idle connections are handed out last in, first out."""

    def __init__(
        self, network: "FakeNetwork", target: Target, quirks: FakeQuirks, max_size: int
    ) -> None:
        self.address = target.address
        self.max_size = max_size
        self.idle: list[FakeConnection] = []
        self.out: dict[FakeConnection, None] = {}
        self.returning: dict[FakeConnection, None] = {}
        self.is_closed = False
        self._network = network
        self._quirks = quirks
        self._slots = asyncio.Semaphore(max_size)
        self._taken = 0
        self._nobody_out = asyncio.Event()

    def __repr__(self) -> str:
        closed = " closed" if self.is_closed else ""
        return (
            f"<FakePool {self.address} out={len(self.out)} idle={len(self.idle)} "
            f"max={self.max_size}{closed}>"
        )

    @property
    def free_size(self) -> int:
        """How many connections could be taken now, opened or not yet."""
        return max(0, self.max_size - self._taken)

    async def fill(self, size: int) -> None:
        """Open connections until ``size`` are idle; whatever goes wrong closes them all."""
        try:
            while len(self.idle) < size:
                self.idle.append(await self._open())
        except BaseException:
            self.terminate()
            raise

    async def acquire(self, *, timeout: float | None = None) -> FakeConnection:
        """Take a connection: an idle one without suspending, or a new one, or wait for a slot.

        `TimeoutError` after ``timeout`` seconds. `FakeError`: the pool is closed, or what the
        host said. `OSError`: the host is down.
        """
        async with asyncio.timeout(timeout):
            await self._slots.acquire()
            self._taken += 1
            self._nobody_out.clear()
            try:
                self._raise_if_closed()
                connection = self._pop_idle() or await self._open()
            except BaseException:
                self._free_slot()
                raise
        self.out[connection] = None
        return connection

    async def release(self, connection: FakeConnection) -> None:
        """Give a connection back: reset it first, drop it where it is closed.

        A reset that fails or is cancelled closes the connection, and is raised; the slot is free
        in any case. `FakeError`: the connection is not out, or is being given back already.
        """
        if connection not in self.out:
            raise FakeError(f"{connection!r} is not out of {self!r}")
        del self.out[connection]
        self.returning[connection] = None
        try:
            if not connection.is_closed and not self.is_closed:
                await connection.reset()
        except BaseException:
            connection.terminate()
            raise
        finally:
            del self.returning[connection]
            if self.is_closed:
                connection.terminate()
            if not connection.is_closed:
                self.idle.append(connection)
            self._free_slot()

    async def close(self) -> None:
        """Wait for the connections that are out, then close all: hangs on a silent host."""
        self.is_closed = True
        if self._taken:
            await self._nobody_out.wait()
        while self.idle:
            connection = self.idle[-1]
            with contextlib.suppress(FakeError, OSError):
                await connection.close()
            if connection in self.idle:
                self.idle.remove(connection)

    def terminate(self) -> None:
        """Cut every connection off, and wake those who wait for a slot, with an error.

        A connect that is pending goes on, and fails when it is answered.
        """
        self.is_closed = True
        for connection in (*self.idle, *self.out, *self.returning):
            connection.terminate()
        self.idle.clear()
        self._nobody_out.set()
        for _ in range(self.max_size):
            self._slots.release()

    async def _open(self) -> FakeConnection:
        flow = await self._network.connect(self.address, self._quirks.cancel_delay)
        connection = FakeConnection(flow, self.address, self._quirks)
        if self.is_closed:
            connection.terminate()
            self._raise_if_closed()
        return connection

    def _pop_idle(self) -> FakeConnection | None:
        while self.idle:
            connection = self.idle.pop()
            if not connection.is_closed:
                return connection
            connection.terminate()
        return None

    def _free_slot(self) -> None:
        self._taken -= 1
        if not self._taken:
            self._nobody_out.set()
        self._slots.release()

    def _raise_if_closed(self) -> None:
        if self.is_closed:
            raise FakeError(f"the pool to {self.address} is closed")


class FakeNetwork:
    """Addresses, and the hosts behind them.

    ``servers`` may be changed: an address that leads to another host from now on is a DNS name
    that moved. Connections stay with the host that they were opened to.
    """

    def __init__(self, servers: Mapping[str, FakeServer]) -> None:
        self.servers = dict(servers)
        self.pools: list[FakePool] = []
        """Every pool that was created, in order."""
        self._dialled: dict[FakeServer, None] = {}

    @classmethod
    def cluster(cls, replicas: int = 2) -> "FakeNetwork":
        """A master ``db1:5432``, and so many replicas: ``db2:5432``, ``db3:5432``, …"""
        names = [f"db{number}" for number in range(1, replicas + 2)]
        return cls({f"{name}:5432": FakeServer(name, name != "db1") for name in names})

    def __getitem__(self, address: str) -> FakeServer:
        return self.servers[address]

    @property
    def dsn(self) -> str:
        """A DSN of all addresses, in order."""
        return f"postgresql://user:secret@{','.join(self.servers)}/test"

    @property
    def masters(self) -> list[FakeServer]:
        """The hosts that are not in recovery, up or not."""
        return [server for server in self.servers.values() if not server.in_recovery]

    @property
    def master(self) -> FakeServer:
        """The one on the highest timeline of `masters`; `LookupError` where there is none."""
        if not self.masters:
            raise LookupError("no host is a master")
        return max(self.masters, key=lambda server: server.timeline)

    @property
    def replicas(self) -> list[FakeServer]:
        """The hosts that are in recovery, up or not."""
        return [server for server in self.servers.values() if server.in_recovery]

    def failover(self, to: FakeServer | None = None, *, old_stays: bool = False) -> FakeServer:
        """Promote ``to``, by default the first replica that is up, one timeline above all.

        The other replicas follow it. The old master goes down, or stays as it is: a split brain.
        Returns the new master. `LookupError`: there is nobody to promote.
        """
        if to is None:
            to = next((server for server in self.replicas if server.is_up), None)
        if to is None:
            raise LookupError("no replica is up")
        for master in self.masters:
            if not old_stays:
                master.down()
        to.timeline = max(server.timeline for server in self.servers.values())
        to.promote()
        for replica in self.replicas:
            replica.timeline = to.timeline
        return to

    async def connect(self, address: str, cancel_delay: float = 0.0) -> FakeFlow:
        """`FakeServer.connect` of the host behind ``address``; `OSError` where there is none."""
        if address not in self.servers:
            raise socket.gaierror(socket.EAI_NONAME, f"{address}: name or service not known")
        server = self.servers[address]
        self._dialled[server] = None
        return await server.connect(cancel_delay)

    @property
    def leftovers(self) -> list[str]:
        """What is not closed: connections, open or being opened, and pools."""
        flows = itertools.chain.from_iterable(server.flows for server in self._dialled)
        pools = (pool for pool in self.pools if not pool.is_closed)
        return [repr(thing) for thing in itertools.chain(flows, pools)]

    def assert_nothing_left(self) -> None:
        """`AssertionError` that names the `leftovers`, where there are any."""
        if self.leftovers:
            raise AssertionError("not closed: " + ", ".join(self.leftovers))


class PooledFakeAdapter:
    """The `Adapter` of the fake driver, without any verb that adapters may add: the monitor takes
    its connection from the pool.

    Pool options: ``min_size`` (1) and ``max_size`` (10), the user's numbers: each pool has one
    more. `acquire_from_pool` takes ``timeout``, in seconds.
    """

    room = 1
    """Connections that a pool has beyond the user's numbers."""

    def __init__(self, network: FakeNetwork, quirks: FakeQuirks | None = None) -> None:
        self.network = network
        self.quirks = quirks or FakeQuirks()

    def check_options(self, target: Target, /, **options: Any) -> None:
        _pool_sizes(**options)

    async def create_pool(self, target: Target, /, **options: Any) -> FakePool:
        min_size, max_size = _pool_sizes(**options)
        pool = FakePool(self.network, target, self.quirks, max_size + self.room)
        self.network.pools.append(pool)
        await pool.fill(min_size + self.room)
        return pool

    def close_pool(self, pool: FakePool, /) -> Awaitable[None]:
        return pool.close()

    async def terminate_pool(self, pool: FakePool, /) -> None:
        if self.quirks.terminate_pool_suspends:
            await asyncio.sleep(0)
        pool.terminate()

    def acquire_from_pool(self, pool: FakePool, /, **kwargs: Any) -> Awaitable[FakeConnection]:
        return pool.acquire(**kwargs)

    def release_to_pool(
        self, connection: FakeConnection, pool: FakePool, /, **kwargs: Any
    ) -> Awaitable[None]:
        return pool.release(connection, **kwargs)

    def terminate_connection(self, connection: FakeConnection, /) -> None:
        connection.terminate()

    async def end_block(self, connection: FakeConnection, exc: BaseException | None, /) -> None:
        if self.quirks.commits_at_end and exc is None:
            await connection.commit()
        elif self.quirks.commits_at_end:
            with contextlib.suppress(FakeError, OSError):
                await connection.rollback()

    def fetch_scalar(self, connection: FakeConnection, query: str, /) -> Awaitable[object]:
        return connection.fetch_scalar(query)

    def sqlstate(self, exc: BaseException, /) -> str | None:
        return exc.sqlstate if isinstance(exc, FakeError) else None

    def get_pool_maxsize(self, pool: FakePool, /) -> int | None:
        return pool.max_size

    def get_pool_idle_size(self, pool: FakePool, /) -> int:
        return len(pool.idle)

    def get_pool_idle_limits(self, pool: FakePool, /) -> tuple[int, int]:
        return 0, pool.max_size

    def is_connection_closed(self, connection: FakeConnection, /) -> bool:
        return connection.is_closed


class FakeReserved:
    """The fake driver's `ReservedConnection`."""

    def __init__(self, connection: FakeConnection) -> None:
        self.connection = connection

    def __repr__(self) -> str:
        return f"<FakeReserved {self.connection!r}>"

    def fetch_scalar(self, query: str, /) -> Awaitable[object]:
        return self.connection.fetch_scalar(query)

    def in_recovery(self) -> bool | None:
        return self.connection.in_recovery

    def is_closed(self) -> bool:
        return self.connection.is_closed

    def terminate(self) -> None:
        self.connection.terminate()


class FakeAdapter(PooledFakeAdapter):
    """The same with a reserved connection apart from the pool, which has the user's numbers."""

    room = 0

    async def reserve(self, target: Target, /, **options: Any) -> FakeReserved:
        _pool_sizes(**options)
        flow = await self.network.connect(target.address, self.quirks.cancel_delay)
        return FakeReserved(FakeConnection(flow, target.address, self.quirks))

    def in_recovery(self, connection: FakeConnection, /) -> bool | None:
        return connection.in_recovery

    def transaction(self, connection: FakeConnection, /) -> AbstractAsyncContextManager[object]:
        return connection.transaction()

    def is_lost_error(self, exc: BaseException, /) -> bool:
        return isinstance(exc, FakeError) and "is closed" in str(exc)


def _pool_sizes(*, min_size: int = 1, max_size: int = 10) -> tuple[int, int]:
    if min_size < 0 or max_size < 1 or min_size > max_size:
        raise ValueError(f"bad pool sizes: min_size={min_size!r}, max_size={max_size!r}")
    return min_size, max_size


_conforms: type[Adapter[FakePool, FakeConnection]] = FakeAdapter
_reserves: type[Reserves] = FakeAdapter
_tells: type[TellsRecovery[FakeConnection]] = FakeAdapter
_runs: type[RunsTransactions[FakeConnection]] = FakeAdapter
_knows: type[TellsLoss] = FakeAdapter
