"""The story: a master is killed, a replica takes over, the old master comes back as a replica."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from pyscopg2.asyncpg import PoolManager
from pyscopg2.balancer_policy import BalancerPolicy
from pyscopg2.testing.cluster import LocalCluster, Node

from .ledger import Ledger, Meter, Rates, Stage
from .load import APPLICATION, CREATE_TABLE, POOL_SIZE, READERS, WRITERS, Load
from .report import Findings, Rows
from .view import Board, HostRow, LogHandler, View

if TYPE_CHECKING:
    from asyncpg import Connection, Record

_LOOK = 0.25
_WATCH = 0.002
_PATIENCE = 15.0
"""Seconds for what must happen by itself; after that it counts as not recovered."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the story stays at each stage, in seconds."""

    steady: float
    undecided: float
    promoted: float

    @classmethod
    def of(cls, seconds: float) -> "Pace":
        """Stages that together with what takes its own time come to about so many seconds."""
        return cls(steady=0.25 * seconds, undecided=0.1 * seconds, promoted=0.2 * seconds)


class Story:
    """One run. `play` tells it to a view, and returns what was found out."""

    def __init__(
        self, cluster: LocalCluster, policy: type[BalancerPolicy], pace: Pace, view: View
    ) -> None:
        self._cluster = cluster
        self._policy = policy
        self._pace = pace
        self._view = view
        self.ledger = Ledger()

    async def play(self) -> Findings:
        complaints: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: complaints.append(str(context.get("exception", context["message"])))
        )
        with _logging_to(self._view):
            self._view.tell("phase", "start")
            await asyncio.to_thread(self._cluster.start)
            nodes = self._cluster.nodes
            found = Findings(
                tuple(node.name for node in nodes),
                old_master=self._cluster.primary.name,
                complaints=complaints,
            )
            self._view.tell(
                "event",
                "cluster: "
                + ", ".join(f"{n.name} {n.address} {n.role}" for n in nodes)
                + "; asynchronous replication, no fsync",
            )
            await _execute(self._cluster.primary, CREATE_TABLE)
            await asyncio.to_thread(self._cluster.wait_streaming)
            await self._with_manager(found)
            await self._look_behind(found)
        return found

    async def _with_manager(self, found: Findings) -> None:
        load = Load(
            self.ledger,
            {node.port: node.name for node in self._cluster.nodes},
            on_error=lambda text: self._view.tell("error", text),
        )
        before = asyncio.all_tasks()
        manager = PoolManager(
            self._cluster.dsn,
            balancer_policy=self._policy,
            pool_factory_kwargs=load.pool_options(),
        )
        async with manager:
            await manager.ready()
            async with _beside(self._show(manager)), _beside(load.run(manager)) as working:
                await self._fail_over(manager, found)
                load.stop()
                await working
            for row in self._rows(manager, {}):
                found.roles[row.name] = row.role
                if row.free is not None and row.free != POOL_SIZE:
                    found.not_free[row.name] = POOL_SIZE - row.free
        found.tasks = [task.get_name() for task in asyncio.all_tasks() - before]
        self._view.tell("event", "the load has ended, the manager is closed")

    async def _fail_over(self, manager: PoolManager, found: Findings) -> None:
        cluster, ledger, tell = self._cluster, self.ledger, self._view.tell
        old = cluster.primary
        tell("phase", f"steady: {WRITERS} writers, {READERS} readers")
        async with _watchers(cluster.replicas) as watchers:
            await asyncio.sleep(self._pace.steady)

            tell("phase", f"kill the master: {old.name}")
            await asyncio.to_thread(cluster.kill, old)
            ledger.stage = Stage.OUTAGE
            tell("event", f"{old.name} is dead; nobody has decided anything yet")
            await asyncio.sleep(self._pace.undecided)

            new = await _most_advanced(watchers)
            found.new_master = new.name
            tell("phase", f"promote {new.name}, which has received the most")
            ledger.successor = new.name
            found.asked = time.monotonic()
            promotion, found.writable = await asyncio.gather(
                _timed(cluster.promote, new), self._first_write(new, watchers[new])
            )
        ledger.stage = Stage.PROMOTED  # if no write came
        tell("event", f"replicas follow {new.name} (promotion took {promotion:.1f} s in all)")
        await asyncio.sleep(self._pace.promoted)

        tell("phase", f"old master rejoins as replica: pg_rewind of {old.name}")
        seconds = await _timed(cluster.rejoin, old)
        tell("event", f"{old.name} streams from {new.name} after {seconds:.1f} s")
        await _until(lambda: len(manager.topology.replicas) == len(found.hosts) - 1, _PATIENCE)
        ledger.stage = Stage.REJOINED
        tell("phase", "steady again")
        await asyncio.sleep(self._pace.steady)
        tell("phase", "end")

    async def _first_write(self, node: Node, watcher: "Connection[Record]") -> float | None:
        """When the promoted server said that it takes writes, asked on a connection that knows
        nothing of pyscopg2. Returns when pyscopg2's first write was acknowledged as well; None
        if one of the two did not happen."""
        tell, ledger = self._view.tell, self.ledger
        writable: float | None = None
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if writable is None and not await watcher.fetchval("SELECT pg_is_in_recovery()"):
                writable = time.monotonic()
                tell("event", f"{node.name} says that it takes writes")
            if writable is not None and node.name in ledger.first_write:
                tell("event", f"the first write came through to {node.name}")
                return writable
            await asyncio.sleep(_WATCH)
        tell("event", f"no write came through to {node.name} in {_PATIENCE:g} s")
        return None

    async def _look_behind(self, found: Findings) -> None:
        """What the closed manager left on the servers, and what became of the rows."""
        for node in self._cluster.nodes:
            if node.is_running and (left := await _backends(node)):
                found.backends[node.name] = left
        connection = await asyncpg.connect(self._cluster.primary.dsn)
        try:
            rows = await connection.fetch("SELECT id FROM demo")
        finally:
            await connection.close()
        found.rows = Rows.compare(self.ledger, {row["id"] for row in rows})

    async def _show(self, manager: PoolManager) -> None:
        names = tuple(node.name for node in self._cluster.nodes)
        meter = Meter(self.ledger, names)
        while True:
            rates = meter.look(time.monotonic())
            history = meter.history
            board = Board(
                self._rows(manager, rates), rates[None], history["write"], history["read"]
            )
            await self._view.show(board)
            await asyncio.sleep(_LOOK)

    def _rows(self, manager: PoolManager, rates: Mapping[str | None, Rates]) -> tuple[HostRow, ...]:
        names = {node.address: node.name for node in self._cluster.nodes}
        pools = {id(pool): pool for pool in manager.pools}
        rows: list[HostRow] = []
        for host in manager.topology:
            name = names[host.address]
            pool = pools.get(id(host.pool))
            rows.append(
                HostRow(
                    name,
                    host.address,
                    host.role.value,
                    None if pool is None else manager.get_last_response_time(pool),
                    None if pool is None else manager.get_pool_freesize(pool),
                    rates.get(name, Rates()),
                )
            )
        return tuple(rows)


@contextlib.contextmanager
def _logging_to(view: View) -> Generator[None]:
    handler = LogHandler(view)
    root = logging.getLogger()
    root.addHandler(handler)
    logging.getLogger("pyscopg2").setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncGenerator[asyncio.Task[None]]:
    """Run `work` no longer than the block; if it failed, so does the block, at its end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


@contextlib.asynccontextmanager
async def _watchers(nodes: Sequence[Node]) -> "AsyncGenerator[dict[Node, Connection[Record]]]":
    """Connections that stand by to ask a server about itself, apart from the manager's."""
    watchers: dict[Node, Connection[Record]] = {}
    try:
        for node in nodes:
            watchers[node] = await asyncpg.connect(node.dsn)
        yield watchers
    finally:
        for watcher in watchers.values():
            watcher.terminate()


async def _most_advanced(watchers: "Mapping[Node, Connection[Record]]") -> Node:
    """The replica to promote: the one that has received the most, so that least gets lost."""
    received = {
        node: await watcher.fetchval("SELECT pg_last_wal_receive_lsn() - '0/0'")
        for node, watcher in watchers.items()
    }
    return max(received, key=lambda node: received[node] or 0)


async def _backends(node: Node) -> int:
    """How many server processes of the manager's a node has, after a moment to end."""
    connection = await asyncpg.connect(node.dsn)
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"
    deadline = time.monotonic() + 3
    try:
        while (
            left := await connection.fetchval(query, APPLICATION)
        ) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
    finally:
        await connection.close()
    return int(left)


async def _execute(node: Node, query: str) -> None:
    connection = await asyncpg.connect(node.dsn)
    try:
        await connection.execute(query)
    finally:
        await connection.close()


async def _timed(verb: Callable[[Node], None], node: Node) -> float:
    """Do it in a thread; returns the seconds that it took."""
    began = time.monotonic()
    await asyncio.to_thread(verb, node)
    return time.monotonic() - began


async def _until(condition: Callable[[], bool], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
