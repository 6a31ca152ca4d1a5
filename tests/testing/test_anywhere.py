"""The contracts run in a stranger's folder, from any other, and leave each test a clean table."""

import subprocess
import sys
from pathlib import Path

IMPORTS = """
import asyncio

import asyncpg
import pytest

from pyscopg2.asyncpg import AsyncpgAdapter
from pyscopg2.base import BasePoolManager
from pyscopg2.testing.contract import AdapterContract, Subject
from pyscopg2.testing.manager_contract import ManagerContract, ManagerSubject
"""

MANAGER = f"""{IMPORTS}

class PoolManager(BasePoolManager):
    adapter = AsyncpgAdapter()


class TestPoolManager(ManagerContract):
    @pytest.fixture
    def subject(self):
        driver = Subject(
            PoolManager.adapter,
            execute=lambda connection, sql: connection.execute(sql),
            commits=False,
            autocommit=True,
        )
        return ManagerSubject(PoolManager, driver, errors=(asyncpg.InterfaceError, OSError))
"""

FAILING = f"""{IMPORTS}

class TestFailing(AdapterContract):
    @pytest.fixture
    def subject(self):
        return Subject(
            AsyncpgAdapter(),
            execute=lambda connection, sql: connection.execute(sql),
            commits=False,
            autocommit=True,
        )

    def test_a_failure_with_leftovers(self, bench):
        async def fail():
            self.kept.append(await asyncpg.connect(bench.target().to_uri()))
            stuck = asyncio.create_task(self.be_stubborn())
            await asyncio.sleep(0)
            bench.cluster.freeze(bench.node)
            assert False, "on purpose"

        bench.run(fail())

    kept = []

    async def be_stubborn(self):
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
"""


def ran(folder: Path, suite: str, *tests: str) -> str:
    file = folder / "test_suite.py"
    file.write_text(suite)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--import-mode=importlib", "--rootdir", str(folder)]
    command += [f"{file}::{test}" for test in tests]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120)
    return done.stdout + done.stderr


def test_a_manager_may_stand_in_the_tests_module(tmp_path: Path) -> None:
    test = "TestPoolManager::test_a_program_that_closes_nothing_ends_at_once"
    told = ran(tmp_path, MANAGER, test)
    assert "2 passed" in told, told


def test_what_the_child_complains_of_is_shown(tmp_path: Path) -> None:
    broken = "import sys\n\nif sys.argv[0] == '-c':\n    raise LookupError('on purpose')\n"
    test = "TestPoolManager::test_a_program_that_closes_nothing_ends_at_once[well]"
    told = ran(tmp_path, broken + MANAGER, test)
    assert "1 failed" in told, told
    assert "the program did not get ready" in told
    assert "LookupError: on purpose" in told


def test_a_failed_test_leaves_the_next_one_a_clean_table(tmp_path: Path) -> None:
    tests = (
        "test_a_failure_with_leftovers",
        "test_closing_a_pool_ends_its_backends",
        "test_a_pool_whose_creation_is_cancelled_closes_its_sockets",
        "test_an_acquired_connection_works_and_is_reused",
    )
    told = ran(tmp_path, FAILING, *(f"TestFailing::{test}" for test in tests))
    assert "1 failed, 4 passed" in told, told
    assert "AssertionError: on purpose" in told
