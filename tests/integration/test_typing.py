"""What the type checkers of our users see."""

import json
import subprocess
import sys
from pathlib import Path

from pyscopg2.testing.cluster import LocalCluster

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("user_program.py")


def run(*command: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def test_the_program_runs(cluster: LocalCluster) -> None:
    done = run("-W", "error", PROGRAM, cluster.dsn)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['Ada', 'Ada']\n", "")


def test_the_program_needs_no_cast_and_no_ignore() -> None:
    text = PROGRAM.read_text()
    assert "cast" not in text
    assert "ignore" not in text


def test_mypy_strict_accepts_the_program() -> None:
    done = run("-m", "mypy", "--strict", PROGRAM)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_strict_accepts_the_program(tmp_path: Path) -> None:
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text(
        json.dumps(
            {
                "typeCheckingMode": "strict",
                "include": [str(PROGRAM)],
                "extraPaths": [str(path) for path in ROOT.glob("packages/*/src")],
            }
        )
    )
    done = run("-m", "pyright", "--pythonpath", sys.executable, "--project", settings)
    assert done.returncode == 0, done.stdout + done.stderr
