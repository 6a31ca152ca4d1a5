"""What an index and its users would stumble over, found before they do."""

import subprocess
from pathlib import Path

from .distributions import ROOT, Distribution


def check(made: list[Distribution], folder: Path) -> list[str]:
    """Those checks that failed: each command and what it wrote."""
    sdists = [str(folder / each.sdist) for each in made]
    wheels = [str(folder / each.wheel) for each in made]
    settings = [str(each.folder / "pyproject.toml") for each in made]
    commands = [
        ["twine", "check", "--strict", *sdists, *wheels],
        ["check-wheel-contents", *wheels],
        ["validate-pyproject", *settings],
        *(["pyroma", "--min=10", sdist] for sdist in sdists),
    ]
    failed: list[str] = []
    for command in commands:
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            failed.append(f"{' '.join(command)}\n{done.stdout}")
    print(f"{len(commands) - len(failed)} of {len(commands)} checks passed", flush=True)
    return failed
