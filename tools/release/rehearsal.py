"""A release to an index on this machine, and the installs that follow it.

The installers are asked for each distribution by its name, as a wheel and as an sdist, in an empty
environment each. They know no index but the local one. What that doesn't have, the drivers and
build backends, it redirects to PyPI; so nothing on PyPI can stand in for one of ours.
"""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .distributions import ROOT, Distribution

INSTALLERS = ("pip", "uv")
FORMS = ("wheel", "sdist")

FIRST_PROGRAM = """
import subprocess, sys
from pathlib import Path
from pyscopg2.testing.cluster import LocalCluster

program = Path(sys.argv[1])
with LocalCluster(replicas=2) as cluster:
    program.write_text(program.read_text().replace(sys.argv[2], cluster.dsn))
    sys.exit(subprocess.run([sys.executable, "-W", "error", program], timeout=60).returncode)
"""
PLACEHOLDER = "postgresql://app:secret@db1:5432,db2:5432,db3:5432/app"


class RehearsalError(Exception):
    """A command failed; says which, and what it wrote."""


@dataclass(frozen=True)
class Stranger:
    """Somebody with an installer, the index, and nothing of this repository."""

    url: str
    home: Path

    def install(self, label: str, installer: str, form: str, *names: str) -> Path:
        """The Python of an environment that was empty before."""
        environment = self.home / label
        self.run(sys.executable, "-m", "uv", "venv", "--quiet", environment)
        python = environment / "bin/python"
        ours = {"pyscopg2-core", *(name.partition("[")[0] for name in names)}
        only = "--only-binary" if form == "wheel" else "--no-binary"
        options = [option for name in ours for option in (only, name)]
        options += ["--quiet", "--index-url", f"{self.url}/simple/", *names]
        if installer == "pip":
            pip = (sys.executable, "-m", "pip", "--python", python)
            self.run(*pip, "install", *options)
            self.run(*pip, "check")
        else:
            uv = (sys.executable, "-m", "uv", "pip")
            self.run(*uv, "install", "--python", python, *options)
            self.run(*uv, "check", "--python", python)
        return python

    def run(self, *command: str | Path) -> str:
        # The user's caches may have files of the same names, from an earlier rehearsal; and the
        # user's settings may name further indexes.
        own = {
            "PIP_CACHE_DIR": str(self.home / "pip-cache"),
            "PIP_EXTRA_INDEX_URL": f"{self.url}/simple/",
            "UV_CACHE_DIR": str(self.home / "uv-cache"),
            "UV_INDEX": f"{self.url}/simple/",
        }
        done = subprocess.run(
            command,
            cwd=self.home,
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode:
            raise RehearsalError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return done.stdout


def rehearse(made: list[Distribution], folder: Path) -> list[str]:
    """Upload, install, run; what failed."""
    with tempfile.TemporaryDirectory() as temporary, index(Path(temporary)) as url:
        stranger = Stranger(url, Path(temporary))
        upload = [sys.executable, "-m", "twine", "upload", "--non-interactive", "--repository-url"]
        files = [folder / name for each in made for name in (each.sdist, each.wheel)]
        stranger.run(*upload, f"{url}/", "--username", "", "--password", "", *files)

        def install(trial: tuple[Distribution, str, str]) -> str | None:
            distribution, installer, form = trial
            label = f"{distribution.name}-{installer}-{form}"
            try:
                python = stranger.install(label, installer, form, distribution.name)
                stranger.run(python, "-c", f"import {distribution.module}")
            except RehearsalError as error:
                return f"{label}: {error}"
            print(f"{distribution.name}: {form}, by {installer}", flush=True)
            return None

        trials = [
            (each, installer, form) for each in made for installer in INSTALLERS for form in FORMS
        ]
        with ThreadPoolExecutor(2) as workers:
            failed = [told for told in workers.map(install, trials) if told is not None]
        try:
            print("the first program:", _run_first_program(stranger).strip(), flush=True)
        except RehearsalError as error:
            failed.append(str(error))
        return failed


def _run_first_program(stranger: Stranger) -> str:
    names = ("pyscopg2-core", "pyscopg2-asyncpg", "pyscopg2-testing[cluster]")
    python = stranger.install("first", "pip", "wheel", *names)
    text = (ROOT / "README.md").read_text()
    found = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    if found is None or PLACEHOLDER not in found[1]:
        raise RehearsalError("README.md has no first program")
    program = stranger.home / "first.py"
    program.write_text(found[1])
    return stranger.run(python, "-c", FIRST_PROGRAM, program, PLACEHOLDER)


@contextlib.contextmanager
def index(home: Path) -> Generator[str]:
    """The address of a pypiserver that takes uploads from everybody on this machine."""
    packages = home / "index"
    packages.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pypiserver", "run", "--interface", "127.0.0.1"]
    # No password file and nothing that asks for one.
    command += ["--port", str(port), "--passwords", ".", "--authenticate", ".", str(packages)]
    with (home / "index.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_listening(server, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _wait_until_listening(server: "subprocess.Popen[bytes]", port: int) -> None:
    limit = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > limit:
                raise RehearsalError("the index does not start") from None
            time.sleep(0.05)
        else:
            return
