"""Whether the contract finds a mistake: its test, in a process of its own."""

import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.testing.mistakes.mistakes import Mistake

LIMIT = 90.0
"""Seconds that the tests of one process may take."""

_SUITE = Path(__file__).with_name("suite.py")
_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Finding:
    """What became of one mistake's test."""

    mistake: Mistake
    said: str
    """The message of the failure; empty where there is none."""
    seconds: float

    @property
    def is_found(self) -> bool:
        return re.search(self.mistake.says, self.said, re.DOTALL) is not None


def find(mistakes: Sequence[Mistake]) -> list[Finding]:
    """Run the tests of these, together. `RuntimeError`: the process hangs, or pytest fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0"]
        command += ["-W", "ignore", "--rootdir", str(_ROOT), f"--junitxml={report}"]
        command += [f"{_SUITE}::{each.suite}::{each.test}" for each in mistakes]
        began = time.monotonic()
        try:
            done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired as exc:
            raise RuntimeError(f"it hangs:\n{exc.stdout!r}") from None
        seconds = time.monotonic() - began
        if not report.exists():
            raise RuntimeError(f"pytest failed:\n{done.stdout}{done.stderr}")
        said = dict(_failures(report))
    alone = len(mistakes) == 1
    return [
        Finding(each, said.get(each.suite, ("", 0.0))[0], seconds if alone else said[each.suite][1])
        for each in mistakes
    ]


def _failures(report: Path) -> list[tuple[str, tuple[str, float]]]:
    found: list[tuple[str, tuple[str, float]]] = []
    for case in ET.parse(report).iter("testcase"):
        failure = case.find("failure")
        said = "" if failure is None else failure.get("message", "")
        suite = case.get("classname", "").rpartition(".")[2]
        found.append((suite, (said, float(case.get("time", 0)))))
    return found
