"""What a fault costs at most: the bench's own run with asyncpg, held to wider bounds.

The bounds of `tools/faults` are for a machine that does nothing else, and are checked there. These
tell a regression of seconds on a machine that does.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONTESTANT = "pyscopg2-asyncpg"
BOUNDS: dict[str, dict[str, float]] = {
    "master-frozen": {"outage": 1.5, "longest": 5, "wrong": 0, "hung": 0},
    "restart": {"outage": 1.5, "longest": 4, "hung": 0},
    "replica-frozen": {"longest_read": 6, "hung": 0},
    "silent": {"outage": 8, "hung": 0},
    "never-closed": {"exit": 2.5, "hung": 0},
    "steady": {"checks": 1},
}
"""A kill and a switch-over are in `test_failover`."""
ALWAYS: dict[str, float] = {"terminate": 4, "tasks": 0, "backends": 0}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The figures of each fault."""
    file = tmp_path_factory.mktemp("faults") / "figures.json"
    options = [option for fault in BOUNDS for option in ("--only", fault)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tools.faults", "--contestant", CONTESTANT, *options),
            *("--json", str(file), "--markdown", str(file.with_suffix(".md"))),
        ],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert file.exists(), done.stdout + done.stderr
    assert f"| {CONTESTANT} |" in file.with_suffix(".md").read_text()
    # 1: it missed a bound of its own, which are narrower.
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    found: list[dict[str, Any]] = json.loads(file.read_text())
    return {row["fault"]: row for row in found}


@pytest.mark.parametrize("fault", BOUNDS)
def test_a_fault_costs_little(rows: dict[str, dict[str, Any]], fault: str) -> None:
    row = rows[fault]
    assert row["contestant"] == CONTESTANT
    assert row["problem"] is None
    assert row["never"] == []
    for figure, bound in (BOUNDS[fault] | ALWAYS).items():
        value = row[figure]
        assert value is not None or (figure, fault) == ("terminate", "never-closed"), figure
        assert value is None or value <= bound, f"{figure}: {row}"
    if fault not in ("never-closed", "steady"):
        assert row["operations"] > 0
