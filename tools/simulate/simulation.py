"""One run, from a seed to what came of it."""

import asyncio
import contextlib
import gc
import logging
import random
import sys
import warnings
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

from .driver import HAIR, SimulationLoop
from .inspection import Inspection
from .story import Story
from .trace import BrokenInvariant, Trace
from .world import World

ROUNDS = 3
"""What is cancelled at the end may begin something else: giving a connection back, for one. Once
more that is cancelled, and once more."""


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
        inspection = Inspection(world)
        loop.watch(inspection.look)
        try:
            loop.run_until_complete(Story(world, inspection).run())
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
            with _quietly():
                _bury(loop)
    finally:
        asyncio.set_event_loop(None)
        with contextlib.nullcontext() if broken is None else _quietly():
            loop.close()
        # Nobody may have closed it, which is the plan: it ended with its loop, and is silent so.
        with contextlib.suppress(StopIteration):
            world.manager.close().send(None)
        logging.getLogger("pyscopg2").setLevel(level)
    result = Result(seed, world.oracle.turn, world.operations, loop.time(), broken, world.trace)
    if broken is not None:
        del world
        broken.with_traceback(None)
        # What never ended must not end in the midst of another run.
        with _quietly():
            gc.collect()
    return result


def _ignore(_: object) -> None:
    pass


@contextlib.contextmanager
def _quietly() -> Generator[None]:
    """For what does not end as it should, after a broken invariant."""
    hook, sys.unraisablehook = sys.unraisablehook, _ignore
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
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
