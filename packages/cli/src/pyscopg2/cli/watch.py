"""`pyscopg2 watch`: a manager's hosts and events as they happen, until it is ended."""

import asyncio
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager, suppress

from rich.console import Console, RenderableType
from rich.live import Live

from pyscopg2.asyncpg import PoolManager
from pyscopg2.cli.chronicle import Chronicle, Line
from pyscopg2.cli.source import make_manager
from pyscopg2.cli.views.watch_view import show_moment
from pyscopg2.core.events import Event

REFRESH_TIMEOUT = 1.0
"""Seconds that a host has for its answer."""

INTERVAL = 0.25
"""Seconds after which the view is drawn anew where nothing happens: lags and times go on."""

_KEPT = 200
"""So many events are kept for the view."""


async def watch(
    dsn: str, console: Console, *, refresh_delay: float, duration: float | None
) -> None:
    """Until a signal ends it (SIGINT, SIGTERM), ``duration`` seconds have passed, or its output is
    read by nobody any more.

    In a terminal a live view, elsewhere a line for each event. `click.UsageError`: the DSN can't be
    used.
    """
    manager = make_manager(dsn, refresh_delay=refresh_delay, refresh_timeout=REFRESH_TIMEOUT)
    ended = asyncio.Event()
    with _set_by_signals(ended):
        if duration is not None:
            asyncio.get_running_loop().call_later(duration, ended.set)
        # Not `is_terminal`: FORCE_COLOR makes that true for a pipe.
        is_live = console.file.isatty() and not console.is_dumb_terminal
        show = _show_live if is_live else _show_lines
        await show(manager, console, ended)


async def _show_lines(manager: PoolManager, console: Console, ended: asyncio.Event) -> None:
    def tell(line: Line) -> None:
        try:
            print(line, file=console.file, flush=True)
        except BrokenPipeError:
            # As Python's manual has it (`signal`, "Note on SIGPIPE"): or its own last flush fails.
            os.dup2(os.open(os.devnull, os.O_WRONLY), console.file.fileno())
            ended.set()

    unsubscribe = manager.subscribe(Chronicle(1, tell).hear)
    async with manager:
        await ended.wait()
        # What follows is our own end, not the cluster's news.
        unsubscribe()
        await manager.terminate()


async def _show_live(manager: PoolManager, console: Console, ended: asyncio.Event) -> None:
    chronicle = Chronicle(_KEPT)
    stirred = asyncio.Event()

    def hear(event: Event) -> None:
        chronicle.hear(event)
        stirred.set()

    unsubscribe = manager.subscribe(hear)
    async with manager:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while not ended.is_set():
                stirred.clear()
                live.update(_moment(manager, console, chronicle), refresh=True)
                with suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL):
                        await stirred.wait()
        # The live view was on a screen of its own: what it showed last stays.
        console.print(_moment(manager, console, chronicle))
        unsubscribe()
        await manager.terminate()


def _moment(manager: PoolManager, console: Console, chronicle: Chronicle) -> RenderableType:
    width, height = console.size
    return show_moment(manager.topology, manager.stats(), list(chronicle.lines), width, height)


@contextmanager
def _set_by_signals(ended: asyncio.Event) -> Generator[None]:
    """Within it, the event is set by what ends a program."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    # Windows has none; there Ctrl-C raises as ever.
    with suppress(NotImplementedError):
        for number in numbers:
            loop.add_signal_handler(number, ended.set)
    try:
        yield
    finally:
        with suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)
