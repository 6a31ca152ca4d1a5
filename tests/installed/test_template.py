"""A package made of the template, by the commands that the page has for it: built, installed beside
core and testing from a folder of wheels, and tested there."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.installed.environment import Environment, build, check

from pyscopg2.testing.cluster import LocalCluster

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "examples/adapter_template"
PAGE = (ROOT / "packages/core/docs/write-an-adapter.md").read_text()
PLACEHOLDER = "postgresql://app:secret@db1:5432,db2:5432,db3:5432/app"

SETTINGS: dict[str, Any] = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())
TESTS = SETTINGS["tool"]["hatch"]["envs"]["tests"]
DRIVERS: dict[str, str] = {
    each["if"][0]: each["value"]
    for each in TESTS["overrides"]["matrix"]["driver"]["extra-dependencies"]
}

MINUTES = 60


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's commands, up to the one that tests it."""
    (commands,) = re.findall(
        r"^```sh\n(cp -R .*?)hatch run tests:run\n```", PAGE, re.DOTALL | re.MULTILINE
    )
    folder = tmp_path_factory.mktemp("made")
    (folder / "examples").symlink_to(ROOT / "examples")
    check("bash", "-e", "-c", commands, cwd=folder)
    return folder / "acme-pyscopg2"


@pytest.fixture(scope="module")
def index(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels: an installer's `--find-links`."""
    folder = tmp_path_factory.mktemp("index")
    for each in (ROOT / "packages/core", ROOT / "packages/testing", package):
        wheel = build(each, tmp_path_factory.mktemp("built"))
        wheel.rename(folder / wheel.name)
    return folder


class Installed:
    """Where the package is installed, beside a driver."""

    def __init__(self, index: Path, driver: str, folder: Path) -> None:
        (folder / "constraints.txt").touch()
        self.environment = Environment(folder / "venv", folder / "constraints.txt")
        self.python = self.environment.python
        # Ours come from the folder alone, whatever an index has of these names.
        ours = ("pyscopg2-core", "pyscopg2-testing", "acme-pyscopg2")
        from_folder = ("--no-index", "--no-deps", "--find-links", str(index))
        self.environment.uv_install(*from_folder, *ours)
        suites = next(each for each in TESTS["dependencies"] if each.startswith("pyscopg2"))
        self.environment.uv_install("acme-pyscopg2", suites, driver)

    def test(self, package: Path, *arguments: str) -> str:
        command = ("-m", "pytest", "-p", "no:cacheprovider", "tests", *arguments)
        return check(self.python, *command, cwd=package, timeout=10 * MINUTES)


@pytest.fixture(scope="module")
def newest(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(index, DRIVERS["newest"], tmp_path_factory.mktemp("newest"))


def text_of(name: str) -> str:
    """A file that stands on the page."""
    (text,) = re.findall(rf'^```python title="{name}"\n(.*?)^```$', PAGE, re.DOTALL | re.MULTILINE)
    return str(text)


def test_the_template_is_what_the_page_has() -> None:
    adapter = (TEMPLATE / "src/mydriver_pyscopg2/adapter.py").read_text()
    assert adapter.partition("\n\n")[2] == text_of("plain_psycopg.py")
    tests = (TEMPLATE / "tests/test_contract.py").read_text()
    assert (
        tests.partition("SUBJECT")[2].replace("TestMydriver", "TestPlainPsycopg")
        == text_of("test_plain_psycopg.py").partition("SUBJECT")[2]
    )


def test_it_is_tested_with_the_lowest_driver_that_it_allows() -> None:
    _, required = SETTINGS["project"]["dependencies"]
    lowest = DRIVERS["lowest"].partition("==")[2]
    assert required == f"psycopg>={lowest},<4"
    (matrix,) = TESTS["matrix"]
    assert matrix["driver"] == list(DRIVERS)
    assert SETTINGS["project"]["requires-python"] == f">={matrix['python'][0]}"


def test_nothing_of_the_template_is_left(package: Path) -> None:
    paths = [path for path in package.rglob("*") if "dist" not in path.parts]
    assert not [path for path in paths if "mydriver" in path.name]
    assert not [path for path in paths if path.is_file() and "mydriver" in path.read_text()]


def test_its_wheel_is_typed_and_has_no_namespace(index: Path) -> None:
    (wheel,) = index.glob("acme_pyscopg2-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "acme_pyscopg2/py.typed" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"acme_pyscopg2"}


def test_its_tests_run(newest: Installed, package: Path) -> None:
    """Some of them: both contracts are kept by `test_page`, with the same files and this driver."""
    told = newest.test(package, "-k", "end_of_a_block or sees_what_was_written")
    assert re.search(r"^=+ \d+ passed, .*\d+ deselected in ", told, re.MULTILINE), told


def test_the_adapters_contract_is_kept_with_the_lowest_driver(
    index: Path, package: Path, tmp_path: Path
) -> None:
    Installed(index, DRIVERS["lowest"], tmp_path).test(package, "-k", "not Manager")


def test_it_is_strictly_typed(newest: Installed, package: Path, tmp_path: Path) -> None:
    mypy = (sys.executable, "-m", "mypy", "--python-executable", newest.python)
    check(*mypy, "--cache-dir", tmp_path, "src", "tests", cwd=package)
    pyright = (sys.executable, "-m", "pyright", "--pythonpath", newest.python)
    check(*pyright, "--warnings", "--project", package)


def test_the_program_in_its_readme_runs(newest: Installed, package: Path) -> None:
    (program,) = re.findall(
        r"^```python\n(.*?)^```$", (package / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    with LocalCluster(replicas=1) as cluster:
        told = check(newest.python, "-W", "error", "-c", program.replace(PLACEHOLDER, cluster.dsn))
    assert told == "(True,)\n"


def test_in_the_namespace_nobody_may_have_an_init_file(
    newest: Installed, package: Path, tmp_path: Path
) -> None:
    """As the page says how to stand there, in a folder other than the core's."""
    namespace = tmp_path / "pyscopg2"
    for path in (package / "src/acme_pyscopg2").glob("*"):
        if path.is_file():
            text = path.read_text().replace("acme_pyscopg2", "pyscopg2.acme")
            (namespace / "acme").mkdir(parents=True, exist_ok=True)
            (namespace / "acme" / path.name).write_text(text)

    def imported() -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [newest.python, "-c", "import pyscopg2.acme, pyscopg2.base"],
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
        )

    assert imported().returncode == 0
    (namespace / "__init__.py").touch()
    assert b"ModuleNotFoundError" in imported().stderr
