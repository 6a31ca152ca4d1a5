"""What the README says of findings, exit codes and options is what there is."""

import re
from pathlib import Path

from tests.cli.support import run

from pyscopg2.cli.check import deadlines
from pyscopg2.cli.check.finding import Kind
from pyscopg2.cli.exit_code import ExitCode
from pyscopg2.cli.source import VARIABLE

TEXT = (Path(__file__).parents[2] / "packages/cli/README.md").read_text()


def test_the_findings() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.+) \|$", TEXT, re.MULTILINE)
    assert rows == [(kind.label, kind.severity.value, kind.remedy) for kind in Kind]


def test_the_exit_codes() -> None:
    told = re.findall(r"^\| (\d) \| ", TEXT, re.MULTILINE)
    assert [int(code) for code in told] == sorted({1, *map(int, ExitCode)})


def test_the_options() -> None:
    for command in ("check", "status", "watch"):
        described = run(command, "--help").stdout
        for option in re.findall(r"--[a-z]+", described):
            assert option in TEXT or option == "--help", option
        assert VARIABLE in described
    assert f"`{VARIABLE}`" in TEXT


def test_the_limit() -> None:
    assert "is done within 3 seconds" in TEXT
    assert deadlines.ALL < 3


def test_the_version() -> None:
    assert re.search(r"\d+\.\d+\.\d+", run("--version").stdout)
