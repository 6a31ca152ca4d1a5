"""The long proofs, in short."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def stress(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tools.stress", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(("proof", "count"), [("scopes", 300), ("deadlines", 50), ("backends", 2)])
def test_a_proof_in_short(proof: str, count: int) -> None:
    done = stress(proof, "--count", str(count))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "asyncpg:" in done.stdout


def test_a_soak_in_short() -> None:
    done = stress("soak", "--minutes", "0.01")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in_service 3, alive 3" in done.stdout
