"""The process that cleans up behind a cluster, however its owner ends.

The owner starts it first of all and holds a pipe to it. When the pipe closes, be it because the
owner asked or because it died, the guardian kills every server, removes the cluster's folder and
what the servers left in the kernel, and ends.

It knows the servers by their working directory. PostgreSQL has no process group or session that
holds all of its processes (each backend calls ``setsid``), and when a postmaster is killed, its
orphans have no ancestor in common with anything. But every server process works in its data
folder, and every helper is started in a folder of the cluster.

This file is also the guardian's own program, so it imports nothing of this package.
"""

import contextlib
import ctypes
import errno
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

import psutil

_Verb = Literal["freeze", "thaw", "kill"]

_VERB_TIMEOUT = 10.0
_CLEANING_TIMEOUT = 15.0
_PAUSE = 0.01
_OWNER_CHECK = 0.5
_END = "\n"
_IPC_RMID = 0
_AT_REST = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


class GuardianError(Exception):
    """The guardian did not do what it was asked, or is gone."""


class Guardian:
    """The owner's end of the pipe.

    Making one starts the process, which makes a new folder under `parent`: `root`. Everything
    that runs in `root` or below it is the guardian's to freeze, thaw and kill. `uid` and `gid`
    are the servers' account if it is not the owner's.

    Every verb raises `GuardianError` if it failed or if the process is gone. They may be called
    from any thread.
    """

    root: Path

    def __init__(self, parent: Path, *, uid: int | None = None, gid: int | None = None) -> None:
        self._lock = threading.Lock()
        self._asked = 0
        self._account: dict[str, int | None] = {"uid": uid, "gid": gid}
        self._process = self._spawn(parent=str(parent), owner=os.getpid())
        try:
            self.root = Path(self._answer(0))
        except BaseException:
            self._hang_up()
            raise

    def freeze(self, folder: Path) -> None:
        """Stop all processes in `folder`; returns when none of them runs."""
        self._ask("freeze", folder)

    def thaw(self, folder: Path) -> None:
        """Let the stopped processes in `folder` go on."""
        self._ask("thaw", folder)

    def kill(self, folder: Path) -> None:
        """End all processes in `folder` at once, frozen or not; returns when they are gone."""
        self._ask("kill", folder)

    def close(self) -> None:
        """Kill everything in `root`, remove it and end; returns when that is done.

        Does nothing the second time. Raises `GuardianError` if something stayed behind.
        """
        with self._lock:
            if self._process.stdout is None or self._process.stdout.closed:
                return
            problem = self._hang_up()
            if self._process.returncode != 0 or self.root.exists():
                # Somebody killed the guardian. Another one finishes its work.
                self._process = self._spawn(leftover=str(self.root))
                problem = self._hang_up()
            if problem:
                raise GuardianError(problem)

    def _spawn(self, **task: str | int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", __file__, json.dumps(self._account | task)],
            # The same modules are found there as here, whoever changed `sys.path`.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )

    def _hang_up(self) -> str:
        """Close the pipe, wait for the process, and return what it complains about."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):
            # Said as well: a process that was forked meanwhile may hold a copy of the pipe, which
            # has no end then.
            stdin.write(_END)
            stdin.close()
        with stdout:
            lines = stdout.read().splitlines()
        self._process.wait()
        # Answers that nobody waited for are no complaints.
        return "\n".join(line for line in lines if not line.startswith("{"))

    def _ask(self, verb: _Verb, folder: Path) -> None:
        with self._lock:
            stdin = self._process.stdin
            if stdin is None or stdin.closed:
                raise GuardianError("the cluster is closed")
            self._asked += 1
            request = {"number": self._asked, "verb": verb, "folder": str(folder)}
            try:
                stdin.write(json.dumps(request) + "\n")
                stdin.flush()
            except BrokenPipeError:
                raise GuardianError("the guardian process is gone") from None
            self._answer(self._asked)

    def _answer(self, number: int) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        for line in stdout:
            if not line.startswith("{"):
                raise GuardianError(f"the guardian process failed:\n{line}{stdout.read()}")
            answer: dict[str, Any] = json.loads(line)
            # An older number: the answer to a question that Ctrl-C interrupted.
            if answer["number"] == number:
                if answer["error"]:
                    raise GuardianError(answer["error"])
                return str(answer["value"])
        raise GuardianError("the guardian process is gone")


class _Warden:
    """The guardian's own end: finds processes and signals them."""

    def __init__(self, uid: int | None, gid: int | None) -> None:
        self._uid = uid
        self._gid = gid

    def processes(self, folder: Path) -> list[psutil.Process]:
        """The living processes in `folder`, those first that were started from elsewhere.

        So a postmaster stands before its children.
        """
        found: dict[int, psutil.Process] = {}
        parents: dict[int, int] = {}
        inside = f"{folder}{os.sep}"
        spared = {os.getpid(), os.getppid()}
        for process in psutil.process_iter():
            if process.pid in spared:
                continue
            # A process that ended meanwhile, a zombie, or a stranger's.
            with contextlib.suppress(psutil.Error, OSError):
                cwd = process.cwd()
                if f"{cwd}{os.sep}".startswith(inside):
                    parents[process.pid] = process.ppid()
                    found[process.pid] = process
        return sorted(found.values(), key=lambda process: parents[process.pid] in found)

    def freeze(self, folder: Path) -> None:
        with self._as_servers():
            # The postmaster comes first, so that it forks no more. A child that it forked while
            # one look was being taken shows in the next: hence two in a row.
            deadline = time.monotonic() + _VERB_TIMEOUT
            calm = 0
            while calm < 2:
                running = [one for one in self.processes(folder) if _status(one) not in _AT_REST]
                for process in running:
                    _signal(process, signal.SIGSTOP)
                calm = 0 if running else calm + 1
                _pause(deadline, running)

    def thaw(self, folder: Path) -> None:
        with self._as_servers():
            deadline = time.monotonic() + _VERB_TIMEOUT
            while stopped := [
                one for one in self.processes(folder) if _status(one) == psutil.STATUS_STOPPED
            ]:
                for process in stopped:
                    _signal(process, signal.SIGCONT)
                _pause(deadline, stopped)

    def kill(self, folder: Path) -> None:
        with self._as_servers():
            deadline = time.monotonic() + _VERB_TIMEOUT
            segments: set[Path] = set()
            calm = 0
            while calm < 2:
                alive = self.processes(folder)
                # Backends that saw their postmaster die would say so to their clients, and it
                # would react to theirs. A dead machine says nothing: so all are stopped first.
                for process in alive:
                    _signal(process, signal.SIGSTOP)
                    segments |= _posix_segments(process)
                for process in reversed(alive):
                    _signal(process, signal.SIGKILL)
                calm = 0 if alive else calm + 1
                _pause(deadline, alive)
            for segment in segments:
                segment.unlink(missing_ok=True)
            for lock_file in folder.rglob("postmaster.pid"):
                _remove_interlock(lock_file)

    def clean(self, root: Path) -> None:
        self.kill(root)
        deadline = time.monotonic() + _CLEANING_TIMEOUT
        while root.exists():
            # What was being started when the owner died may still write.
            with contextlib.suppress(OSError):
                shutil.rmtree(root)
            _pause(deadline, [])
        self.kill(root)

    @contextlib.contextmanager
    def _as_servers(self) -> Generator[None, None, None]:
        """Be the servers' user for a while.

        In a container, root is often not allowed to look at another user's processes.
        """
        if self._uid is None or self._gid is None:
            yield
            return
        own_uid, own_gid = os.geteuid(), os.getegid()
        os.setegid(self._gid)
        os.seteuid(self._uid)
        try:
            yield
        finally:
            os.seteuid(own_uid)
            os.setegid(own_gid)


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _pause(deadline: float, left: list[psutil.Process]) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"out of time with {left or 'files'} left")
    time.sleep(_PAUSE)


def _posix_segments(process: psutil.Process) -> set[Path]:
    """The POSIX shared memory that a server maps: a killed one leaves it in /dev/shm.

    The cluster's servers use files in their data folder instead, but ``initdb`` (before
    PostgreSQL 16) and servers set up otherwise do not.
    """
    try:
        maps = Path(f"/proc/{process.pid}/maps").read_text(errors="replace")
    except OSError:
        return set()
    names = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "/dev/shm/" in line}
    return {Path(name) for name in names if name.startswith("/dev/shm/PostgreSQL.")}


def _remove_interlock(lock_file: Path) -> None:
    """Remove the System V segment that a killed server leaves, then its lock file.

    The seventh line of ``postmaster.pid`` holds the segment's key and id. The file goes as
    well: a new process with the dead postmaster's number would keep the server from starting.
    """
    try:
        lines = lock_file.read_text().splitlines()
    except FileNotFoundError:
        return
    if len(lines) > 6 and len(ids := lines[6].split()) == 2:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.shmctl(int(ids[1]), _IPC_RMID, None) != 0:
            number = ctypes.get_errno()
            if number not in (errno.EINVAL, errno.EIDRM):
                raise OSError(number, f"shared memory segment {ids[1]}: {os.strerror(number)}")
    lock_file.unlink(missing_ok=True)


def _tell(number: int, value: str = "", error: str = "") -> None:
    # Nobody reads when the owner is dead.
    with contextlib.suppress(OSError):
        line = json.dumps({"number": number, "value": value, "error": error})
        os.write(1, f"{line}\n".encode())


def _serve(warden: _Warden, owner: int) -> None:
    """Do what the pipe asks for until it says that this is all, or closes, or the owner is dead.

    Looking at the owner as well: a process that it forked may hold the pipe open.
    """
    received = b""
    while os.getppid() == owner:
        readable, _, _ = select.select([0], [], [], _OWNER_CHECK)
        if not readable:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *requests, received = (received + chunk).split(b"\n")
        for line in requests:
            if not line:
                return
            request: dict[str, Any] = json.loads(line)
            verbs = {"freeze": warden.freeze, "thaw": warden.thaw, "kill": warden.kill}
            try:
                verbs[request["verb"]](Path(request["folder"]))
            except Exception as error:
                _tell(request["number"], error=f"{request['verb']}: {error!r}")
            else:
                _tell(request["number"])


def _main() -> int:
    # The owner alone decides when it is over, by its end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    task: dict[str, Any] = json.loads(sys.argv[1])
    warden = _Warden(task["uid"], task["gid"])
    if "leftover" in task:
        root = Path(task["leftover"])
    else:
        root = Path(tempfile.mkdtemp(prefix="pyscopg2-cluster-", dir=task["parent"]))
    try:
        if "owner" in task:
            if task["uid"] is not None:
                os.chown(root, task["uid"], task["gid"])
            _tell(0, value=str(root))
            _serve(warden, task["owner"])
    finally:
        warden.clean(root)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
