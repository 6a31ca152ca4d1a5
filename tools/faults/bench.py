"""Runs the scenarios: one fault met by a few contestants at the same time, on one cluster."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass

from .arena import Arena, Child, ContestantError
from .child import Result, Task
from .contestants import CONTESTANTS
from .faults import FAULTS, Fault, Marks
from .figures import (
    NEVER,
    Figures,
    Measure,
    errors_of,
    first_write,
    longest,
    reads_suffer,
    twenty_in_a_row,
    wrong_writes,
)

_ROWS = 10_000_000
"""Numbers of rows that one contestant may use in one scenario."""


@dataclass(frozen=True, slots=True)
class Scenario:
    fault: str
    contestants: Sequence[str]


def scenarios(
    faults: Sequence[str], contestants: Sequence[str], together: int, rounds: int
) -> list[Scenario]:
    """Each fault for each contestant, once a round; so many contestants at the same time."""
    groups = [contestants[i : i + together] for i in range(0, len(contestants), together)]
    return [Scenario(f, group) for _ in range(rounds) for f in faults for group in groups]


Tell = Callable[[str], None]
Told = Callable[[str, str, Figures], None]


class Bench:
    """`run` plays scenarios, and tells what it found as it goes."""

    def __init__(self, arena: Arena, pythons: Mapping[str | None, str], tell: Tell) -> None:
        self._arena = arena
        self._pythons = pythons
        self._tell = tell
        self._row = 1

    async def run(self, todo: Sequence[Scenario], found: Told) -> None:
        roles = [f"faults_{number}" for number in range(max(len(s.contestants) for s in todo))]
        await self._arena.prepare(roles)
        spawning = asyncio.create_task(self._spawn(todo[0], roles))
        try:
            for number, scenario in enumerate(todo):
                children = await spawning
                began = time.monotonic()
                try:
                    figures = await self._play(FAULTS[scenario.fault], children)
                finally:
                    await asyncio.gather(*(child.kill() for child in children.values()))
                for name, figure in figures.items():
                    found(scenario.fault, name, figure)
                more = todo[number + 1 : number + 2]
                spawning = asyncio.create_task(self._spawn(more[0], roles) if more else _no_one())
                healing = time.monotonic()
                await self._arena.heal()
                over = time.monotonic()
                self._tell(
                    f"{number + 1}/{len(todo)} {scenario.fault}: {', '.join(scenario.contestants)}"
                    f" ({healing - began:.1f} s, healed in {over - healing:.1f} s)"
                )
        finally:
            spawning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*(child.kill() for child in (await spawning).values()))

    async def _spawn(self, scenario: Scenario, roles: Sequence[str]) -> dict[str, Child]:
        """Their processes, which have imported their drivers and wait."""
        made: dict[str, Child] = {}

        async def spawn(name: str, role: str) -> None:
            python = self._pythons[CONTESTANTS[name].environment]
            made[name] = await Child.spawn(name, role, python)

        try:
            async with asyncio.TaskGroup() as group:
                for name, role in zip(scenario.contestants, roles, strict=False):
                    group.create_task(spawn(name, role))
        except BaseException:
            for child in made.values():
                await child.kill()
            raise
        return {name: made[name] for name in scenario.contestants}

    async def _play(self, fault: Fault, children: Mapping[str, Child]) -> dict[str, Figures]:
        arena = self._arena
        marks = Marks()
        roles = [child.role for child in children.values()]
        async with contextlib.AsyncExitStack() as stack:
            if not fault.load:
                await stack.enter_async_context(_logging(arena, roles))
            if fault.through_proxies:
                await stack.enter_async_context(arena.through_proxies())
            works, figures = await self._begin(fault, children)
            await fault.play(arena, marks, [child.role for child in works.values()])
            over = time.monotonic()
            results = await asyncio.gather(
                *(child.stop() for child in works.values()), return_exceptions=True
            )
            if fault.through_proxies:
                # What was silenced, nobody but the proxy can end on the server's side.
                for proxy in arena.proxies.values():
                    proxy.cut()
            old_only: set[int] = set()
            if marks.old is not None and marks.new is not None and marks.old.is_running:
                old_only = await arena.rows(marks.old) - await arena.rows(marks.new)

            async def judge(name: str, child: Child, result: Result | BaseException) -> None:
                if isinstance(result, BaseException):
                    figures[name] = Figures(problem=f"{type(result).__name__}: {result}")
                    return
                backends = await arena.backends(child.role) if fault.terminate else 0
                figures[name] = _figures(
                    fault,
                    marks,
                    result,
                    old_only=old_only,
                    over=over,
                    backends=backends,
                    leaving=await child.leave(),
                    checks=marks.checks.get(child.role),
                )

            await asyncio.gather(
                *(judge(*each, result) for each, result in zip(works.items(), results, strict=True))
            )
        return {name: figures[name] for name in children}

    async def _begin(
        self, fault: Fault, children: Mapping[str, Child]
    ) -> tuple[dict[str, Child], dict[str, Figures]]:
        """Those that work now, and what is to be said of those that don't."""
        tasks: list[Task] = []
        for name, child in children.items():
            options = dict(fault.options) if CONTESTANTS[name].is_ours else {}
            dsn = self._arena.dsn(child.role)
            tasks.append(Task(dsn, options, self._row, fault.load, fault.terminate))
            self._row += _ROWS
        begun = await asyncio.gather(
            *(child.begin(task) for child, task in zip(children.values(), tasks, strict=True)),
            return_exceptions=True,
        )
        works: dict[str, Child] = {}
        figures: dict[str, Figures] = {}
        for (name, child), result in zip(children.items(), begun, strict=True):
            if result is None:
                works[name] = child
            elif isinstance(result, ContestantError):
                figures[name] = Figures(problem=f"did not begin: {result}")
            else:
                raise result
        return works, figures


async def _no_one() -> dict[str, Child]:
    return {}


@contextlib.asynccontextmanager
async def _logging(arena: Arena, roles: Sequence[str]) -> AsyncGenerator[None]:
    await arena.log_statements(roles, True)
    try:
        yield
    finally:
        await arena.log_statements(roles, False)


def _figures(
    fault: Fault,
    marks: Marks,
    result: Result,
    *,
    old_only: set[int],
    over: float,
    backends: int,
    leaving: float | None,
    checks: float | None,
) -> Figures:
    operations = result.operations
    outage: float | None = None
    if fault.outage is Measure.FIRST_WRITE:
        assert marks.new is not None
        assert marks.writable is not None
        outage = first_write(operations, marks.new.name, marks.fault, marks.writable)
    elif fault.outage is Measure.READS_SUFFER:
        outage = reads_suffer(operations, marks.fault)
    elif fault.outage is Measure.TWENTY_IN_A_ROW:
        outage = twenty_in_a_row(operations, marks.fault)
    wrong = (
        []
        if marks.old is None or marks.writable is None
        else wrong_writes(operations, marks.old.name, old_only, marks.writable)
    )
    sent = [o.got for o in wrong if o.got is not None]
    terminate = result.terminate
    if fault.terminate and terminate is None:
        terminate = NEVER
    return Figures(
        outage=outage,
        errors=errors_of(operations, marks.fault),
        operations=sum(o.succeeded for o in operations if o.began > marks.fault),
        longest=longest(operations, marks.fault, over),
        longest_read=longest([o for o in operations if o.kind == "read"], marks.fault, over),
        wrong=len(wrong),
        wrong_until=None if marks.writable is None or not sent else max(sent) - marks.writable,
        hung=sum(o.ended is None for o in operations),
        terminate=terminate,
        tasks=len(result.tasks),
        backends=backends,
        exit=NEVER if leaving is None else leaving,
        checks=checks,
        problem=result.terminate_error,
    )
