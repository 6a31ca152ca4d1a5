"""`pyscopg2 watch`: a failover as a terminal shows it, and as a pipe does."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pyte
import pytest

from pyscopg2.testing.cluster import LocalCluster

PATIENCE = 30.0
"""Seconds after which what is waited for is taken for something that never comes."""

COMMAND = [str(Path(sys.executable).with_name("pyscopg2")), "watch"]

LINE = re.compile(r"\d\d:\d\d:\d\d\.\d\d\d  \S.*")


class Terminal:
    """A program in a terminal of its own, and what stands on its screen."""

    def __init__(self, command: list[str], columns: int, lines: int = 24) -> None:
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        env = {name: value for name, value in os.environ.items() if name not in _SIZES}
        self.process = subprocess.Popen(
            command,
            stdin=side,
            stdout=side,
            stderr=side,
            env=env | {"TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(side)
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.columns = columns

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display)

    def read(self) -> bool:
        """What has come, if anything comes within a moment; False: the program has ended."""
        if select.select([self._main], [], [], 0.05)[0]:
            try:
                data = os.read(self._main, 65536)
            except OSError:
                return False
            self._stream.feed(data)
        return True

    def wait(self, condition: Callable[[str], object]) -> None:
        until = time.monotonic() + PATIENCE
        while not condition(self.text):
            assert self.read(), self.text
            assert time.monotonic() < until, self.text

    def end(self, number: signal.Signals) -> int:
        """Its exit code, once all that it said is on the screen."""
        self.process.send_signal(number)
        while self.read():
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)


_SIZES = ("COLUMNS", "LINES")


@contextmanager
def terminal(columns: int, *arguments: str) -> Generator[Terminal]:
    opened = Terminal([*COMMAND, *arguments], columns)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def piped(*arguments: str) -> Generator["subprocess.Popen[str]"]:
    command = [*COMMAND, *arguments]
    pipe = subprocess.PIPE
    # Which has some libraries take a pipe for a terminal.
    env = os.environ | {"FORCE_COLOR": "1"}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env) as it:
        try:
            yield it
        finally:
            it.kill()


def row(text: str, address: str) -> str:
    """The line of the table that is about a host; empty where there is none."""
    table = text.partition("events")[0]
    return next((line for line in table.splitlines() if line.startswith(address)), "")


@pytest.mark.parametrize("columns", [80, 160])
def test_a_failover_in_a_terminal(breakable_cluster: LocalCluster, columns: int) -> None:
    old = breakable_cluster.primary
    new = breakable_cluster.replicas[0]
    with terminal(columns, breakable_cluster.dsn, "--every", "0.2") as seen:
        seen.wait(lambda text: "master" in row(text, old.address))
        seen.wait(lambda text: "replica" in row(text, new.address))
        seen.wait(lambda text: f"master: {old.address}" in text.partition("\n")[0])
        breakable_cluster.kill(old)
        seen.wait(lambda text: "unavailable" in row(text, old.address))
        seen.wait(lambda text: f"master: {old.address} -> none" in text)
        seen.wait(lambda text: "master: none" in text.partition("\n")[0])
        breakable_cluster.promote(new)
        seen.wait(lambda text: f"master: none -> {new.address}" in text)
        seen.wait(lambda text: "master" in row(text, new.address))
        seen.wait(lambda text: f"master: {new.address}  failovers: 1" in text)
        # What it showed last stays when it ends.
        assert seen.end(signal.SIGINT) == 0
        assert f"master: {new.address}" in seen.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_failover_in_a_pipe(breakable_cluster: LocalCluster, number: signal.Signals) -> None:
    old = breakable_cluster.primary
    new = breakable_cluster.replicas[0]
    with piped(breakable_cluster.dsn, "--every", "0.2") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said: list[str] = []

        def wait(what: str) -> None:
            """Until a line ends so. The pipe's end, or the suite's own timeout, ends the wait."""
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line.rstrip("\n"))
                if said[-1].endswith(what):
                    return
            raise AssertionError("\n".join(said))

        wait(f"master: none -> {old.address}")
        breakable_cluster.kill(old)
        wait(f"master: {old.address} -> none")
        breakable_cluster.promote(new)
        wait(f"master: none -> {new.address}")
        process.send_signal(number)
        said += process.stdout.read().splitlines()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""
    for line in said:
        assert line.isprintable()
        assert LINE.fullmatch(line), line
    # A host that is down is told of once for each way in which it fails, not with each check.
    failures = [line.partition("  ")[2] for line in said if "check failed" in line]
    assert len(failures) == len(set(failures))


def test_it_ends_by_itself(cluster: LocalCluster) -> None:
    with piped(cluster.dsn, "--for", "0.5") as process:
        told, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "started" in told
    assert complaints == ""


def test_it_ends_with_its_reader(breakable_cluster: LocalCluster) -> None:
    with piped(breakable_cluster.dsn, "--every", "0.2") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        breakable_cluster.kill(breakable_cluster.replicas[0])
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""


def test_an_idle_cluster_has_nothing_to_tell(cluster: LocalCluster) -> None:
    with piped(cluster.dsn, "--every", "0.05", "--for", "1") as process:
        told, _ = process.communicate(timeout=PATIENCE)
    # Overdue: this machine was busy.
    lines = [line for line in told.splitlines() if "overdue" not in line]
    roles = [line for line in lines if line.endswith("(was unknown)")]
    pools = [line for line in lines if line.endswith("pool opened")]
    assert len(roles) == len(pools) == 3, told
    assert len(lines) == 1 + 3 + 3 + 1, told


@pytest.mark.parametrize("command", ["check", "status"])
def test_an_encoding_that_has_not_all_characters(cluster: LocalCluster, command: str) -> None:
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [COMMAND[0], command, cluster.dsn], env=env, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0
    assert b"master" in done.stdout
    assert done.stderr == b""
