"""Two processes over HTTP, in short."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_read_misses_what_another_process_wrote() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.causal_web", "--pairs", "20"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in the handler" in done.stdout
    assert done.stderr == ""
