"""What people see: a live screen in a terminal, plain lines elsewhere."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

from .ledger import Rates

Tag = Literal["phase", "event", "error", "log"]

_STYLES: dict[str, str] = {
    "phase": "bold",
    "event": "default",
    "error": "red",
    "log": "dim",
    "master": "bold green",
    "replica": "cyan",
    "superseded": "yellow",
    "unavailable": "red",
    "unknown": "dim",
}


@dataclass(frozen=True, slots=True)
class HostRow:
    """One host as the manager sees it now, and what it does."""

    name: str
    address: str
    role: str
    response_time: float | None
    free: int | None
    rates: Rates

    @property
    def response(self) -> str:
        return "-" if self.response_time is None else f"{self.response_time * 1000:.2f} ms"


@dataclass(frozen=True, slots=True)
class Board:
    """All that moves, at one moment."""

    hosts: tuple[HostRow, ...]
    total: Rates
    writes: Sequence[float]
    """Writes a second, one look after the other; the last is the newest."""
    reads: Sequence[float]


class View(Protocol):
    """Where the story is told. Also a context, within which it is seen."""

    def tell(self, tag: Tag, text: str) -> None:
        """Something happened."""
        ...

    async def show(self, board: Board) -> None:
        """The present figures, a few times a second."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...


class PlainView:
    """One line an event, and one a second with the figures."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def tell(self, tag: Tag, text: str) -> None:
        print(_line(time.monotonic() - self._began, tag, text), flush=True)

    async def show(self, board: Board) -> None:
        now = time.monotonic()
        if now - self._shown < 1:
            return
        self._shown = now
        total = board.total
        parts = [
            f"writes/s={total.writes:.0f} reads/s={total.reads:.0f} errors/s={total.errors:.0f}"
        ]
        parts += [
            f"{host.name} {host.role} {host.response.replace(' ', '')}"
            f" free={'-' if host.free is None else host.free}"
            f" w={host.rates.writes:.0f} r={host.rates.reads:.0f} e={host.rates.errors:.0f}"
            for host in board.hosts
        ]
        print(_line(now - self._began, "rates", " | ".join(parts)), flush=True)


class LiveView:
    """A screen that is drawn anew a few times a second, with the story and the log below.

    When it ends, the story stands in the terminal as plain lines, to scroll back to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._story: list[tuple[float, Tag, str]] = []
        self._log: deque[tuple[float, Tag, str]] = deque(maxlen=50)
        self._headline = "start"
        self._board: Board | None = None
        # Drawn by `show`, in a thread: a terminal that is slow or stopped must not stop the loop.
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()
        for at, tag, text in self._story:
            self._console.print(Text(_line(at, tag, text), _STYLES[tag]), soft_wrap=True)

    def tell(self, tag: Tag, text: str) -> None:
        entry = (time.monotonic() - self._began, tag, text)
        self._story.append(entry)
        if tag == "log":
            self._log.append(entry)
        elif tag == "phase":
            self._headline = text

    async def show(self, board: Board) -> None:
        self._board = board
        await asyncio.to_thread(self._live.update, self._screen(), refresh=True)

    def _screen(self) -> RenderableType:
        board = self._board
        hosts = board.hosts if board is not None else ()
        figures = len(hosts) + 6
        left = self._console.height - figures - 1
        log = max(4, min(len(hosts) * 2 + 3, left // 2))
        layout = Layout()
        layout.split_column(
            Layout(self._head(), size=1),
            Layout(self._figures(board), size=figures),
            Layout(self._panel("story", [e for e in self._story if e[1] != "log"], left - log)),
            Layout(self._panel("log", list(self._log), log), size=log),
        )
        return layout

    def _head(self) -> RenderableType:
        grid = Table.grid(expand=True)
        grid.add_column()
        grid.add_column(justify="right")
        seconds = time.monotonic() - self._began
        grid.add_row(
            Text(f" {self._headline}", "bold reverse", no_wrap=True, overflow="ellipsis"),
            Text(f"{seconds:.0f} s   Ctrl-C ends it ", "reverse"),
            style=Style(reverse=True),
        )
        return grid

    def _figures(self, board: Board | None) -> RenderableType:
        if board is None:
            return Text("\n  initdb, pg_basebackup, streaming replication ...", "dim")
        table = Table(box=None, expand=True, padding=(0, 1), show_footer=True, header_style="dim")
        total = board.total
        table.add_column("host", Text("all", "bold"), no_wrap=True)
        table.add_column("role", no_wrap=True, min_width=11)
        table.add_column("response", justify="right", no_wrap=True)
        table.add_column("free", justify="right", no_wrap=True)
        table.add_column("writes/s", Text(f"{total.writes:.0f}", "bold"), justify="right")
        table.add_column("reads/s", Text(f"{total.reads:.0f}", "bold"), justify="right")
        table.add_column("errors/s", _errors(total.errors), justify="right")
        for host in board.hosts:
            table.add_row(
                f"{host.name} [dim]{host.address}[/]",
                Text(host.role, _STYLES.get(host.role, "")),
                host.response,
                "-" if host.free is None else str(host.free),
                _figure(host.rates.writes),
                _figure(host.rates.reads),
                _errors(host.rates.errors),
            )
        width = max(10, self._console.width - 12)
        ascii_only = self._console.options.ascii_only
        sparks = Table.grid(padding=(0, 1))
        sparks.add_row(" writes", Text(sparkline(board.writes, width, ascii_only), "green"))
        sparks.add_row(" reads", Text(sparkline(board.reads, width, ascii_only), "cyan"))
        return Group(Text(), table, Text(), sparks)

    def _panel(self, title: str, entries: list[tuple[float, Tag, str]], height: int) -> Panel:
        # The newest lines that there is room for, each on a line of its own.
        lines = Text(no_wrap=True, overflow="ellipsis")
        for at, tag, text in entries[-max(1, height - 2) :]:
            lines.append(f"{at:5.1f}s  ", "dim")
            lines.append(f"{text}\n", _STYLES[tag] if tag != "log" else "")
        lines.rstrip()
        return Panel(lines, title=title, title_align="left", border_style="dim")


class LogHandler(logging.Handler):
    """Sends log records to a view."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info is not None and record.exc_info[1] is not None:
            # A line is enough here; whoever wants the traceback has a log of their own.
            text = f"{text}: {record.exc_info[1]!r}"
        name = "" if record.name == "pyscopg2" else f"{record.name} "
        try:
            self._view.tell("log", f"{record.levelname} {name}{text}")
        except OSError:
            pass  # nobody reads any more; the story notices by itself


def sparkline(values: Sequence[float], width: int, ascii_only: bool = False) -> str:
    """The newest `width` values as a row of little bars, the highest as high as a line."""
    steps = " .:-=+*#%" if ascii_only else " ▁▂▃▄▅▆▇█"
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    # Zero is blank, and nothing else is: a gap in the line is a gap in the service.
    return "".join(
        steps[max(1, round(value / top * (len(steps) - 1)))] if value > 0 else " "
        for value in shown
    )


def choose_view(console: Console, *, plain: bool = False) -> View:
    """The live screen, where the terminal can show it."""
    usable = console.is_terminal and not console.is_dumb_terminal
    roomy = console.width >= 70 and console.height >= 20
    return LiveView(console) if usable and roomy and not plain else PlainView()


def _line(at: float, tag: str, text: str) -> str:
    return f"{at:6.2f}s {tag:<6} {text}"


def _figure(rate: float) -> Text:
    return Text(f"{rate:.0f}", "" if rate >= 0.5 else "dim")


def _errors(rate: float) -> Text:
    return Text(f"{rate:.0f}", "bold red" if rate > 0 else "dim")
