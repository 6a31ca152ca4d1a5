"""The writers and readers of one contestant: they hold a connection for a while, and retry at once.

Runs in the contestant's process.
"""

import asyncio
import time
from dataclasses import dataclass
from itertools import count

from .contestants import Contestant, Opened
from .operation import Kind, Operation

WRITERS = 20
READERS = 20
CREATE_TABLE = "CREATE TABLE faults (id bigint PRIMARY KEY)"

_INSERT = "INSERT INTO faults (id) VALUES ({}) RETURNING current_setting('cluster_name')"
_SELECT = "SELECT current_setting('cluster_name') FROM (SELECT max(id) FROM faults) AS newest"
_HOLD = 0.03
"""Seconds that a worker keeps its connection after the answer: so all pools are full. Every
other worker spends them in a further statement, so that a fault finds both kinds."""
_SLEEP = f"SELECT pg_sleep({_HOLD})::text"
_SPIN = 0.005
"""Seconds from one attempt to the next, at least: errors that come at once would be all there is
on this machine."""


@dataclass(slots=True, eq=False)
class Attempt:
    """An operation that is under way."""

    kind: Kind
    began: float
    row: int | None = None
    got: float | None = None
    answered: float | None = None
    host: str | None = None
    hung: bool = False

    def end(self, error: str | None = None) -> Operation:
        ended = None if self.hung else time.monotonic()
        return Operation(
            self.kind, self.began, self.got, self.answered, ended, self.host, error, self.row
        )


class Load:
    """`operations` grows while it runs."""

    def __init__(self, contestant: Contestant, opened: Opened, first_row: int) -> None:
        self._contestant = contestant
        self._opened = opened
        self._rows = count(first_row)
        self._under_way: set[Attempt] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.operations: list[Operation] = []

    def start(self) -> None:
        writers: list[Kind] = ["write"] * WRITERS
        readers: list[Kind] = ["read"] * READERS
        self._tasks = [
            asyncio.create_task(self._work(kind, busy=bool(number % 2)))
            for number, kind in enumerate(writers + readers)
        ]

    async def warm(self, least: int = 100) -> None:
        """Until there were so many successes of each kind."""
        kinds: tuple[Kind, Kind] = ("write", "read")
        while any(
            sum(o.succeeded for o in self.operations if o.kind == kind) < least for kind in kinds
        ):
            await asyncio.sleep(0.05)

    async def stop(self, patience: float) -> None:
        """Let every worker end its operation; what has not ended after so long counts as hung."""
        self._stopping = True
        await asyncio.wait(self._tasks, timeout=patience)
        for attempt in self._under_way:
            attempt.hung = True
            self.operations.append(attempt.end())

    async def cancel(self, patience: float) -> int:
        """Cancel the workers that hang; how many of them don't end in so many seconds."""
        for task in self._tasks:
            task.cancel()
        _, stuck = await asyncio.wait(self._tasks, timeout=patience)
        return len(stuck)

    async def _work(self, kind: Kind, *, busy: bool) -> None:
        acquire = self._opened.acquire[kind]
        fetch = self._contestant.fetch
        while not self._stopping:
            attempt = Attempt(kind, time.monotonic())
            self._under_way.add(attempt)
            error: str | None = None
            try:
                async with acquire() as connection:
                    attempt.got = time.monotonic()
                    if kind == "write":
                        attempt.row = next(self._rows)
                        attempt.host = await fetch(connection, _INSERT, attempt.row)
                    else:
                        attempt.host = await fetch(connection, _SELECT, None)
                    attempt.answered = time.monotonic()
                    if busy:
                        await fetch(connection, _SLEEP, None)
                    else:
                        await asyncio.sleep(_HOLD)
            except Exception as exc:
                error = type(exc).__name__
            finally:
                self._under_way.discard(attempt)
            if not attempt.hung:
                self.operations.append(attempt.end(error))
            await asyncio.sleep(max(0.0, _SPIN - (time.monotonic() - attempt.began)))
