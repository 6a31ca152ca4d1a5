"""The page on how to write an adapter: what stands there is installed, tested and type-checked, as
it stands, by the commands that stand there."""

import json
import re
import sys
from pathlib import Path

import pytest
from tests.installed.environment import Environment, build, check, install_line, run

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "packages/core/docs/write-an-adapter.md"
PACKAGES = ROOT / "packages"
PG8000 = ROOT / "examples/pg8000_threads/src/pg8000_threads"
PSQLPY = ROOT / "examples/psqlpy_pool/src"
FILES: dict[str, str] = dict(
    re.findall(r'^```python title="(.*?)"\n(.*?)^```$', PAGE.read_text(), re.DOTALL | re.MULTILINE)
)

MINUTES = 60


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What the page's first command installs."""
    folder = tmp_path_factory.mktemp("page")
    wheels = {name: build(PACKAGES / name, folder / name) for name in ("core", "testing")}
    constraints = folder / "constraints.txt"
    constraints.write_text(
        "".join(f"pyscopg2-{name} @ {wheel.as_uri()}\n" for name, wheel in wheels.items())
    )
    environment = Environment(folder / "venv", constraints)
    environment.uv_install(*install_line(PAGE))
    return environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, and nothing else."""
    folder = tmp_path_factory.mktemp("files")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def lines_of(text: str) -> int:
    """Without blanks and comments."""
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))


def lines_in(*folders: Path) -> int:
    return sum(lines_of(path.read_text()) for each in folders for path in each.rglob("*.py"))


def test_both_contracts_are_kept(environment: Environment, folder: Path) -> None:
    found = re.search(r"^```sh\npython (-m pytest.*)\n```$", PAGE.read_text(), re.MULTILINE)
    assert found is not None
    told = check(
        environment.python,
        *found[1].split(),
        "-p",
        "no:cacheprovider",
        cwd=folder,
        timeout=10 * MINUTES,
    )
    assert re.search(r"^=+ \d{3} passed, \d+ skipped in ", told, re.MULTILINE), told


def test_mypy_and_pyright_find_nothing_in_their_strict_modes(
    environment: Environment, folder: Path, tmp_path: Path
) -> None:
    settings = ("--strict", "--config-file=", "--cache-dir", tmp_path)
    mypy = (sys.executable, "-m", "mypy", "--python-executable", environment.python)
    check(*mypy, *settings, ".", cwd=folder)
    configuration = {"typeCheckingMode": "strict", "include": [str(folder)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(configuration))
    pyright = (sys.executable, "-m", "pyright", "--pythonpath", environment.python)
    check(*pyright, "--warnings", "--project", tmp_path)
    assert not re.search(r"type: *ignore|pyright: *ignore|noqa", "".join(FILES.values()))


def test_a_mistake_in_the_subject_is_one_complaint(
    environment: Environment, folder: Path, tmp_path: Path
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text.replace("commits=False", "commit=False"))
    settings = ("--strict", "--config-file=", "--cache-dir", tmp_path / "cache")
    mypy = (sys.executable, "-m", "mypy", "--python-executable", environment.python)
    told = run(*mypy, *settings, "--exclude", "cache", ".", cwd=tmp_path).stdout
    assert "Found 1 error in 1 file" in told, told


def test_the_adapter_is_short() -> None:
    assert list(FILES) == ["plain_psycopg.py", "test_plain_psycopg.py"]
    other = ROOT / "tests/testing/plain_psycopg.py"
    assert other.read_text() == FILES["plain_psycopg.py"], "other tests need it, too"
    assert lines_of(FILES["plain_psycopg.py"]) <= 60


def test_the_numbers_of_lines_are_honest() -> None:
    """Of what changes with every fix, about."""
    adapter = lines_of((PG8000 / "adapter.py").read_text())
    kit = PACKAGES / "core/src/pyscopg2/core/adapter/asyncpg"
    assert told(r"without its pool, (\d+) lines") == lines_of(FILES["plain_psycopg.py"])
    assert told(r"(\d+) lines, and \d+ that make an asyncio driver") == adapter
    assert told(r"\d+ lines, and (\d+) that make an asyncio driver") == lines_in(PG8000) - adapter
    for number, folders in (
        (told(r"can't do everything: about (\d+) lines"), [PSQLPY]),
        (told(r"psycopg with its pool\]\(.*?\): about (\d+) lines"), [PACKAGES / "psycopg/src"]),
        (told(r"asyncpg's adapter has about (\d+)"), [PACKAGES / "asyncpg/src", kit]),
        (told(r"SQLAlchemy's about (\d+)"), [PACKAGES / "sqlalchemy/src"]),
    ):
        assert number == pytest.approx(lines_in(*folders), rel=0.1)


def told(pattern: str) -> int:
    (number,) = re.findall(pattern, PAGE.read_text())
    return int(number)
