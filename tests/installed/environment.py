"""Virtual environments as users have them, and what is installed there."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path


def run(
    *command: str | Path, cwd: Path | None = None, timeout: float = 300
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)


def check(*command: str | Path, cwd: Path | None = None, timeout: float = 300) -> str:
    done = run(*command, cwd=cwd, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(package: Path, into: Path) -> Path:
    """The wheel, out of the sdist."""
    check(sys.executable, "-m", "build", "--no-isolation", "--outdir", into, package)
    (wheel,) = into.glob("*.whl")
    return wheel


def install_line(document: Path) -> list[str]:
    """What the first `pip install` of a document names."""
    found = re.search(r"^pip install (.*)$", document.read_text(), re.MULTILINE)
    assert found is not None, document
    return shlex.split(found[1], comments=True)


class Environment:
    """A virtual environment, and the installer that its user has."""

    def __init__(self, path: Path, constraints: Path) -> None:
        self.path = path
        self.python = path / "bin/python"
        self.pulled: set[str] = set()
        """What was installed by the adapter's name alone."""
        self._constraints = constraints
        check(sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, path)

    def uv_install(self, *arguments: str) -> None:
        command = (sys.executable, "-m", "uv", "pip", "install", "--quiet")
        check(*command, "--python", self.python, "--constraint", self._constraints, *arguments)

    def pip_install(self, *arguments: str) -> None:
        command = (sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet")
        check(*command, "--constraint", self._constraints, *arguments)

    def installed(self) -> set[str]:
        command = (sys.executable, "-m", "uv", "pip", "list", "--format=json")
        listed = json.loads(check(*command, "--python", self.python))
        return {distribution["name"].lower() for distribution in listed}
