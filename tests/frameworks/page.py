"""A page of packages/core/docs/frameworks, its files written out, and its commands run."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import httpx
from tests.support.programs import PLACEHOLDER, commands, files
from tests.support.waiting import PATIENCE

from pyscopg2.testing.cluster.ports import Ports

PAGES = Path(__file__).parents[2] / "packages/core/docs/frameworks"


class Page:
    """Its program, in a folder of its own; with that of another page which it is about."""

    def __init__(self, names: str, folder: Path, dsn: str) -> None:
        text = "".join((PAGES / f"{name}.md").read_text() for name in names.split(" with "))
        self.commands = commands(text)
        self.files = files(text)
        self.folder = folder
        for path, content in self.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content.replace(PLACEHOLDER, dsn))

    def run(self, command: str) -> str:
        """One that ends by itself; what it printed."""
        done = subprocess.run(
            self._argv(command),
            cwd=self.folder,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * PATIENCE,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def check(self, command: str = "pytest") -> None:
        """Run the page's own tests."""
        self.run(command)

    @contextlib.contextmanager
    def running(self, command: str, log: str = "log", port: int = 8000) -> Generator["Running"]:
        """One that runs in the block, until SIGTERM. What it tells goes to that file."""
        argv = self._argv(command, port)
        told = self.folder / log
        with told.open("w") as out:
            process = subprocess.Popen(
                argv, cwd=self.folder, env=_environment(), stdout=out, stderr=out
            )
        running = Running(process, told)
        try:
            yield running
            process.send_signal(signal.SIGTERM)
            # uvicorn ends in order, and then of the signal itself.
            assert process.wait(PATIENCE) in (0, -signal.SIGTERM), running.told
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    @contextlib.contextmanager
    def served(self, command: str) -> Generator[httpx.Client]:
        """A server, on a free port instead of 8000; in the block it is ready."""
        ports = Ports()
        port = ports.take()
        ports.release()
        with (
            self.running(command, port=port) as running,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client,
        ):
            running.until(lambda: _answers(client))
            yield client

    def _argv(self, command: str, port: int = 8000) -> list[str]:
        assert command in self.commands, self.commands
        command = command.replace("8000", str(port))
        program, *arguments = shlex.split(command)
        return [str(Path(sys.executable).parent / program), *arguments]


class Running:
    """A process, and what it tells."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def told(self) -> str:
        return self._log.read_text()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until it is true; the process has to live."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, self.told
            assert time.monotonic() < end, self.told
            time.sleep(0.02)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ready/").status_code == 200
    except httpx.TransportError:
        return False


def _environment() -> dict[str, str]:
    """Without what pytest has set for this run."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
