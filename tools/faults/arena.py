"""The cluster of the bench, and the contestants' processes in front of it."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import asyncpg

from pyscopg2.testing.cluster import ClusterError, LocalCluster, Node
from pyscopg2.testing.fault_proxy import FaultProxy

from .child import PATIENCE, Result, Task
from .load import CREATE_TABLE
from .operation import Operation

if TYPE_CHECKING:
    from asyncpg import Connection, Record

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "max_connections": "150",
    # A server that works on a query does not look whether its client is still there.
    "client_connection_check_interval": "100ms",
    "log_line_prefix": "%u ",
}

_PROBE = 0.002
_WARM = 20.0
_EXIT = 3.0
_SAID = 2000
"""Characters of what a contestant that died had to say."""
_LINE = 1 << 28
"""Bytes of the longest line that a contestant says: its operations."""
_CHECKS = ("SELECT pg_catalog.concat_ws(", "SHOW transaction_read_only")
"""What a manager asks a host for: ours, and what libpq and hasql ask."""


class ContestantError(Exception):
    """A contestant's process ended, or said nothing in time."""


class Child:
    """One contestant's process."""

    def __init__(
        self, name: str, role: str, process: asyncio.subprocess.Process, complaints: IO[bytes]
    ) -> None:
        self.name = name
        self.role = role
        self._process = process
        self._complaints = complaints

    @classmethod
    async def spawn(cls, name: str, role: str, python: str) -> "Child":
        """Returns when it has imported its driver."""
        # A file, not a pipe: nobody has to read on for the process to go on.
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 - `kill` closes it
        process = await asyncio.create_subprocess_exec(
            *(python, "-X", "faulthandler", "-m", "tools.faults.child", name),
            cwd=ROOT,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            limit=_LINE,
            start_new_session=True,
        )
        child = cls(name, role, process, complaints)
        try:
            await child._hear(_WARM)
        except BaseException:
            await child.kill()
            raise
        return child

    async def begin(self, task: Task) -> None:
        """Returns when it works."""
        self._tell(asdict(task))
        await self._hear(_WARM)

    async def stop(self) -> Result:
        self._tell("stop")
        said = await self._hear(PATIENCE + 10)
        operations = [Operation(*values) for values in said.pop("operations")]
        return Result(operations, **said)

    async def leave(self) -> float | None:
        """Seconds from the return of its `main` to its end; None: it had to be killed."""
        self._tell("leave")
        try:
            returning: float = (await self._hear(_EXIT))["returning"]
            async with asyncio.timeout(_EXIT):
                await self._process.wait()
        except (ContestantError, TimeoutError):
            await self.kill()
            return None
        return time.monotonic() - returning

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()
        self._complaints.close()

    def _tell(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _hear(self, patience: float) -> Any:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(patience):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise ContestantError(f"said nothing for {patience:g} s") from None
        if not line:
            code = await self._process.wait()
            self._complaints.seek(0)
            said = self._complaints.read().decode(errors="replace").strip()
            raise ContestantError(f"ended, with exit code {code}: {said[-_SAID:]}")
        return json.loads(line)


class Arena:
    """What a fault may use: the cluster's verbs, in threads, and independent observers."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.proxies: dict[Node, FaultProxy] = {}
        """In front of the nodes, in those scenarios that want them."""

    async def prepare(self, roles: Sequence[str]) -> None:
        """Start the cluster, with a login for each contestant that runs at the same time."""
        await asyncio.to_thread(self.cluster.start)
        logins = "".join(
            f"CREATE ROLE {role} LOGIN PASSWORD '{self.cluster.password}';"
            f" GRANT SELECT, INSERT ON faults TO {role};"
            for role in roles
        )
        await self.execute(self.cluster.primary, f"{CREATE_TABLE}; {logins}")
        await asyncio.to_thread(self.cluster.wait_streaming)

    def dsn(self, role: str) -> str:
        nodes = self.cluster.nodes
        addresses = [(self.proxies[node] if self.proxies else node).address for node in nodes]
        login = f"{role}:{self.cluster.password}"
        return f"postgresql://{login}@{','.join(addresses)}/{self.cluster.database}"

    @contextlib.asynccontextmanager
    async def through_proxies(self) -> AsyncGenerator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for node in self.cluster.nodes:
                self.proxies[node] = await stack.enter_async_context(FaultProxy(node))
            try:
                yield
            finally:
                self.proxies.clear()

    async def heal(self) -> None:
        """Bring back a primary, whichever node it is, and replicas that stream from it."""
        await asyncio.to_thread(self._heal)

    def _heal(self) -> None:
        cluster = self.cluster
        for node in cluster.nodes:
            cluster.thaw(node)
        if not cluster.primary.is_running:
            cluster.start(cluster.primary)
        for node in cluster.nodes:
            if node is cluster.primary:
                continue
            if node.role == "replica" and not node.is_running:
                cluster.start(node)
            if not self._follows(node):
                cluster.rejoin(node)

    def _follows(self, node: Node) -> bool:
        if node.role == "primary":
            return False
        try:
            self.cluster.wait_streaming(node, timeout=2)
        except ClusterError:
            return False
        return True

    # Observers: connections of the bench's own, past all contestants

    @contextlib.asynccontextmanager
    async def connected(self, node: Node) -> "AsyncGenerator[Connection[Record]]":
        connection = await asyncpg.connect(node.dsn, timeout=10)
        try:
            yield connection
        finally:
            connection.terminate()

    async def execute(self, node: Node, sql: str) -> None:
        async with self.connected(node) as connection:
            await connection.execute(sql)

    @contextlib.asynccontextmanager
    async def death_of(self, node: Node) -> AsyncGenerator[asyncio.Future[float]]:
        """When a client that only waits sees its connection to the node end."""
        seen: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def ended(_: object) -> None:
            if not seen.done():
                seen.set_result(time.monotonic())

        async with self.connected(node) as connection:
            connection.add_termination_listener(ended)
            yield seen
            connection.remove_termination_listener(ended)

    async def most_advanced(self) -> Node:
        """The replica to promote: the one that has received the most, so that least gets lost."""
        received: dict[Node, int] = {}
        for node in self.cluster.replicas:
            async with self.connected(node) as connection:
                lsn = await connection.fetchval("SELECT pg_last_wal_receive_lsn() - '0/0'")
            received[node] = lsn or 0
        return max(received, key=lambda node: received[node])

    async def promote(self, node: Node, *, follow: bool = True) -> float:
        """Returns when it is over; the moment at which the node said that it takes writes."""
        async with self.connected(node) as connection:
            _, at = await asyncio.gather(
                asyncio.to_thread(self.cluster.promote, node, follow=follow),
                _writable(connection),
            )
        return at

    async def start(self, node: Node) -> float:
        """The moment at which a client that connects at once was told that writes are taken."""

        async def knock() -> float:
            while True:
                try:
                    async with self.connected(node) as connection:
                        return await _writable(connection)
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(_PROBE)

        _, at = await asyncio.gather(asyncio.to_thread(self.cluster.start, node), knock())
        return at

    async def rows(self, node: Node) -> set[int]:
        async with self.connected(node) as connection:
            return {row["id"] for row in await connection.fetch("SELECT id FROM faults")}

    async def backends(self, role: str, patience: float = 3.0) -> int:
        """How many server processes a contestant has, after a moment to end."""
        deadline = time.monotonic() + patience
        while True:
            left = 0
            for node in self.cluster.nodes:
                if node.is_running and not node.is_frozen:
                    async with self.connected(node) as connection:
                        left += await connection.fetchval(
                            "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", role
                        )
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.05)

    # Counting checks

    async def log_statements(self, roles: Sequence[str], on: bool) -> None:
        """Whether the servers log what these logins ask for, on connections made after this."""
        setting = "SET log_statement = 'all'" if on else "RESET log_statement"
        sql = "; ".join(f"ALTER ROLE {role} {setting}" for role in roles)
        await self.execute(self.cluster.primary, sql)
        await asyncio.to_thread(self.cluster.wait_streaming)

    def checks(self) -> Mapping[tuple[str, Node], int]:
        """How many checks each login has made of each node, as far as was logged."""
        found: Counter[tuple[str, Node]] = Counter()
        for node in self.cluster.nodes:
            for line in node.log_file.read_text(errors="replace").splitlines():
                if any(check in line for check in _CHECKS):
                    found[line.partition(" ")[0], node] += 1
        return found


async def _writable(connection: "Connection[Record]") -> float:
    while await connection.fetchval("SELECT pg_is_in_recovery()"):
        await asyncio.sleep(_PROBE)
    return time.monotonic()


async def python_of(environment: str | None) -> str:
    """The interpreter of one of Hatch's environments, which is made where it is missing."""
    if environment is None:
        return sys.executable
    process = await asyncio.create_subprocess_exec(
        *("hatch", "run", f"{environment}:python", "-c", "import sys; print(sys.executable)"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaints = await process.communicate()
    if process.returncode != 0:
        raise ContestantError(f"no environment {environment}: {complaints.decode()[-500:]}")
    return said.decode().split()[-1]
