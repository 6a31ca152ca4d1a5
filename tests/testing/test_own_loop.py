"""The contracts' tests need no plugin of pytest's for asyncio."""

import ast
import asyncio
import inspect
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from pyscopg2.testing import bench
from pyscopg2.testing.contract import AdapterContract
from pyscopg2.testing.contracts.own_loop import in_own_loop
from pyscopg2.testing.manager_contract import ManagerContract

TESTING = Path(bench.__file__).parent

SHIPPED = [TESTING / "bench.py", *sorted(TESTING.rglob("contracts/**/*.py"))]

SUITE = """
import asyncio

import pytest

from pyscopg2.testing.contracts.own_loop import in_own_loop


class Runner:
    def run(self, main):
        asyncio.run(main)


class TestSuite:
    @pytest.fixture
    def runner(self):
        return Runner()

    @pytest.fixture
    def two(self):
        return 2

    @pytest.mark.parametrize("one", [1, 3])
    @in_own_loop
    async def test_sum(self, runner, one, two):
        await asyncio.sleep(0)
        assert one + two == 3

    @in_own_loop
    async def test_skipped(self, runner):
        pytest.skip("not here")
"""


def test_fixtures_parameters_and_failures_are_as_those_of_plain_tests(tmp_path: Path) -> None:
    suite = tmp_path / "test_suite.py"
    suite.write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
    command += ["-p", "no:asyncio", "-p", "no:anyio", "--rootdir", str(tmp_path), str(suite)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert "1 failed, 1 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    assert "assert (3 + 2) == 3" in done.stdout
    assert "not here" in done.stdout
    # What is shown begins in the test, and not in what runs it.
    assert "own_loop.py" not in done.stdout


class Runner:
    def __init__(self) -> None:
        self.ran = 0

    def run(self, main: Coroutine[Any, Any, None], /) -> None:
        asyncio.run(main)
        self.ran += 1


class Suite:
    @in_own_loop
    async def test(self, runner: Runner, word: str) -> None:
        """What it is about."""
        assert word == "right"


def test_it_runs_by_its_first_fixture_however_it_is_given() -> None:
    runner = Runner()
    Suite().test(runner, "right")
    Suite().test(word="right", runner=runner)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  as pytest does
    assert runner.ran == 2
    with pytest.raises(AssertionError):
        Suite().test(runner, "wrong")
    assert Suite.test.__doc__ == "What it is about."


@pytest.mark.parametrize("contract", [AdapterContract, ManagerContract])
def test_no_plugin_takes_the_contracts_tests_for_its_own(contract: type) -> None:
    tests = [test for name, test in inspect.getmembers(contract) if name.startswith("test_")]
    assert len(tests) > 30
    assert not any(map(inspect.iscoroutinefunction, tests))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_assert_of_the_contracts_says_what_is_wrong(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assert) and not ast.unparse(node.test).endswith("is not None"):
            assert node.msg is not None, f"{path}:{node.lineno}"
