"""What a driver can't do is declared, skipped, and told at the end of the run."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.testing.right_adapters import Right, subject_of

from pyscopg2.testing.bench import Subject
from pyscopg2.testing.contracts.gaps import GAPS

SUITE = """
import asyncpg
import pytest

from pyscopg2.asyncpg import AsyncpgAdapter
from pyscopg2.testing.contract import AdapterContract, Subject


class Silent(AsyncpgAdapter):
    def sqlstate(self, exc, /):
        return None


class TestSilent(AdapterContract):
    @pytest.fixture
    def subject(self):
        return Subject(
            Silent(),
            execute=lambda connection, sql: connection.execute(sql),
            commits=False,
            autocommit=True,
            sqlstates=False,
            cancels_connects=False,
        )
"""


def test_the_run_tells_what_users_lose(tmp_path: Path) -> None:
    suite = tmp_path / "test_suite.py"
    suite.write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
    command += [
        "--junitxml=report.xml",
        "-W",
        "error",
        "-p",
        "no:asyncio",
        "--rootdir",
        str(tmp_path),
        str(suite),
    ]
    command += ["-k", "server_that_refuses_says_why or acquires_that_connect"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert "2 passed, 2 skipped" in done.stdout, done.stdout + done.stderr
    assert "a declared gap: cancels_connects=False" in done.stdout
    for gap in ("sqlstates", "cancels_connects"):
        assert done.stdout.count(f"TestSilent: {gap}=False. {GAPS[gap]}") == 1, done.stdout
    assert "terminates_queries" not in done.stdout


def test_every_gap_is_a_field_that_says_no_by_itself() -> None:
    subject: Subject[object, object] = subject_of(Right())
    assert subject.gaps == ()
    for gap in GAPS:
        assert subject_of(Right(), **{gap: False}).gaps == (gap,)
    with pytest.raises(TypeError):
        subject_of(Right(), no_such_gap=False)
