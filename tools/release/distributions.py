"""What is released: each folder in `packages/`, with a version and a changelog of its own."""

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


class BuildError(Exception):
    """Says of which distribution, and what the builder wrote."""


@dataclass(frozen=True)
class Distribution:
    folder: Path
    name: str
    version: str

    @property
    def module(self) -> str:
        """What its user imports."""
        return f"pyscopg2.{self.folder.name}"

    @property
    def sdist(self) -> str:
        return f"{self._stem}.tar.gz"

    @property
    def wheel(self) -> str:
        return f"{self._stem}-py3-none-any.whl"

    @property
    def _stem(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}"


def distributions() -> list[Distribution]:
    found: list[Distribution] = []
    for path in sorted(ROOT.glob("packages/*/pyproject.toml")):
        project = tomllib.loads(path.read_text())["project"]
        found.append(Distribution(path.parent, project["name"], project["version"]))
    return found


def build(distribution: Distribution, into: Path, *options: str) -> None:
    """The sdist and, from that and not from the folder, the wheel."""
    command = [sys.executable, "-m", "build", *options, "--outdir", str(into)]
    command.append(str(distribution.folder))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise BuildError(f"{distribution.name} can't be built:\n{done.stdout}")
    for name in (distribution.sdist, distribution.wheel):
        if not (into / name).is_file():
            raise BuildError(f"{distribution.name}: no {name} was built")


def show_news(distribution: Distribution) -> None:
    """Show what the changelog would say of the next release."""
    print(f"{distribution.name}\n", flush=True)
    _towncrier(distribution, "--draft", "--version", "Unreleased")


def prepare(distribution: Distribution, version: str) -> None:
    """Set the version, and move the fragments into the changelog."""
    path = distribution.folder / "pyproject.toml"
    text, found = re.subn(
        r'^version = ".*"$', f'version = "{version}"', path.read_text(), count=1, flags=re.MULTILINE
    )
    if not found:
        raise ValueError(f"no version in {path}")
    path.write_text(text)
    _towncrier(distribution, "--yes", "--version", version)


def _towncrier(distribution: Distribution, *options: str) -> None:
    where = ("--config", str(ROOT / "towncrier.toml"), "--dir", str(distribution.folder))
    subprocess.run([sys.executable, "-m", "towncrier", "build", *where, *options], check=True)
