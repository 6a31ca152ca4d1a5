"""`python -m tools.faults.child NAME`: one contestant's process.

It is told by lines of JSON on stdin, and tells by lines of JSON on stdout:

    it: {"started": true}                  imported, waits
    told: {"dsn": ..., ...}                a `Task`: open and work
    it: {"warm": time}
    told: "stop"                           end the load, then terminate
    it: {"operations": [...], ...}         a `Result`; it now waits, so that its sockets stay
    told: "leave"
    it: {"returning": time}                `main` returns; what follows is the event loop's end
"""

import asyncio
import json
import logging
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from .contestants import CONTESTANTS
from .load import Load
from .operation import Operation

PATIENCE = 4.0
"""Seconds after which `terminate` counts as one that never returns."""
_GRACE = 1.5
"""Seconds that an operation may take to end after the load was stopped: longer than the
acquire timeouts."""


@dataclass(frozen=True)
class Task:
    """What a contestant is to do."""

    dsn: str
    options: dict[str, Any]
    first_row: int
    load: bool = True
    terminate: bool = True


@dataclass(frozen=True)
class Result:
    """What came of it."""

    operations: list[Operation] = field(default_factory=list[Operation])
    terminate: float | None = None
    """Seconds; None: not within `PATIENCE`, or not called."""
    terminate_error: str | None = None
    tasks: list[str] = field(default_factory=list[str])
    """That were left after it."""


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


async def _hear() -> Any:
    return json.loads(await asyncio.to_thread(sys.stdin.readline))


async def _main(name: str) -> None:
    contestant = CONTESTANTS[name]
    _say(started=True)
    task = Task(**await _hear())
    before = asyncio.all_tasks()
    opened = await contestant.open(task.dsn, task.options)
    load = Load(contestant, opened, task.first_row)
    if task.load:
        load.start()
        await load.warm()
    _say(warm=time.monotonic())
    assert await _hear() == "stop"
    if task.load:
        await load.stop(_GRACE)
    took: float | None = None
    error: str | None = None
    if task.terminate:
        began = time.monotonic()
        ending = asyncio.ensure_future(opened.terminate())
        done, _ = await asyncio.wait([ending], timeout=PATIENCE)
        if done:
            took = time.monotonic() - began
            failed = ending.exception()
            error = None if failed is None else repr(failed)
    if task.load:
        await load.cancel(1.0)
    left = [t.get_name() for t in asyncio.all_tasks() - before] if task.terminate else []
    _say(**asdict(Result(load.operations, took, error, left)))
    assert await _hear() == "leave"
    _say(returning=time.monotonic())


if __name__ == "__main__":
    # What contestants log is their own business; the bench counts errors.
    logging.disable(logging.CRITICAL)
    asyncio.run(_main(sys.argv[1]))
