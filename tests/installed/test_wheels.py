"""What users install: each wheel in a virtual environment of its own, by its plain name.

There a user's program runs, and mypy and pyright read it: they find our types as those of any other
installed package.
"""

import json
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.installed.environment import Environment, build, check, install_line, run

from pyscopg2.testing.cluster import LocalCluster

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
PYRIGHT = ("asyncpg", "psycopg")
"""A driver that has stubs, and one that has types of its own."""
PROGRAMS = Path(__file__).with_name("programs")
COMPARISON = ROOT / "packages/core/docs/adapters.md"


@dataclass(frozen=True)
class Expected:
    """What the wheel of an adapter brings with it, and what its user does."""

    driver: set[str]
    """The distributions that it pulls, and no others."""
    sizes_of: str
    """What has the driver's own sizes for a pool as its defaults."""
    stubs: tuple[str, ...] = ()
    """Where the driver has no types of its own."""
    prints: str = "['Ada', 'Ada']"


EXPECTED = {
    "aiopg": Expected(
        {"aiopg", "psycopg2-binary", "async-timeout"}, "aiopg:create_pool", ("types-psycopg2",)
    ),
    "aiopg_sa": Expected(
        {"aiopg", "psycopg2-binary", "async-timeout", "sqlalchemy", "greenlet"},
        "aiopg.sa:create_engine",
        ("types-psycopg2",),
    ),
    "asyncpg": Expected({"asyncpg"}, "asyncpg:create_pool", ("asyncpg-stubs",)),
    "asyncpgsa": Expected(
        {"asyncpgsa", "asyncpg", "sqlalchemy"}, "asyncpg:create_pool", ("asyncpg-stubs",)
    ),
    "psycopg": Expected(
        {"psycopg", "psycopg-pool", "typing-extensions"}, "psycopg_pool:AsyncConnectionPool"
    ),
    "sqlalchemy": Expected(
        {"sqlalchemy", "greenlet", "typing-extensions"},
        "sqlalchemy.pool:QueuePool",
        ("asyncpg-stubs",),
        prints="['Ada', 'Ada', 'Ada']",
    ),
}

TELL_SIZES = """
import asyncio, importlib, inspect, pkgutil, sys

async def main(adapter, sizes_of, dsn, *names):
    defaults = inspect.signature(pkgutil.resolve_name(sizes_of)).parameters
    print(*(f"{name}={defaults[name].default}" for name in names), sep=", ")
    async with importlib.import_module(f"pyscopg2.{adapter}").PoolManager(dsn) as manager:
        await manager.ready()
        print(*(manager.adapter.get_pool_maxsize(pool) + 1 for pool in manager.pools))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of each package, out of its sdist, by the package's folder name."""
    folder = tmp_path_factory.mktemp("wheels")
    made: dict[str, Path] = {}
    for package in PACKAGES:
        made[package.name] = build(package, folder / package.name)
    return made


@pytest.fixture(scope="module")
def constraints(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By these a plain name means the wheel here, whatever an index has of that name."""
    path = tmp_path_factory.mktemp("constraints") / "constraints.txt"
    lines = (f"{name_of(package)} @ {wheel.as_uri()}\n" for package, wheel in wheels.items())
    path.write_text("".join(lines))
    return path


def name_of(package: str) -> str:
    return f"pyscopg2-{package.replace('_', '-')}"


def program_of(adapter: str) -> Path:
    return PROGRAMS / f"on_{adapter}.py"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=0) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=EXPECTED)
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def environment(
    adapter: str, constraints: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """Has the adapter, then what its README says beside it, then what a type checker needs."""
    environment = Environment(tmp_path_factory.mktemp("environments") / adapter, constraints)
    # Pip resolves in a way of its own, and this one has the most to resolve.
    install = environment.pip_install if adapter == "asyncpgsa" else environment.uv_install
    install(name_of(adapter))
    environment.pulled = environment.installed()
    readme = ROOT / "packages" / adapter / "README.md"
    environment.uv_install(*install_line(readme), *EXPECTED[adapter].stubs)
    return environment


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all of them: the standard library is the same."""
    return tmp_path_factory.mktemp("mypy")


def test_wheels_share_no_file(wheels: dict[str, Path]) -> None:
    seen: dict[str, str] = {}
    for package, wheel in wheels.items():
        for name in zipfile.ZipFile(wheel).namelist():
            assert name not in seen, f"{name} is in {package} and in {seen[name]}"
            seen[name] = package
    assert "pyscopg2/py.typed" in seen
    assert "pyscopg2/__init__.py" not in seen


@pytest.mark.parametrize(
    ("name", "beside", "module"),
    [
        ("pyscopg2-core", set[str](), "pyscopg2.base"),
        ("pyscopg2-asgi", {"pyscopg2-core"}, "pyscopg2.asgi"),
    ],
)
def test_what_has_no_driver_pulls_nothing(
    name: str, beside: set[str], module: str, constraints: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "venv", constraints)
    environment.uv_install("--no-index", name)
    assert environment.installed() == {name} | beside
    check(environment.python, "-W", "error", "-c", f"import {module}")


def test_the_command_runs_where_it_alone_is_installed(
    constraints: Path, tmp_path: Path, cluster: LocalCluster
) -> None:
    environment = Environment(tmp_path / "venv", constraints)
    environment.uv_install("pyscopg2-cli")
    done = run(environment.python.with_name("pyscopg2"), "check", cluster.dsn)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 faults, 0 warnings, 0 notes" in done.stdout


def test_the_front_page_installs_what_asyncpgs_does() -> None:
    assert install_line(ROOT / "README.md") == install_line(ROOT / "packages/asyncpg/README.md")


def test_a_name_pulls_its_driver_and_no_other(adapter: str, environment: Environment) -> None:
    ours = {"pyscopg2-core", name_of(adapter)}
    assert environment.pulled == EXPECTED[adapter].driver | ours


def test_a_program_runs(adapter: str, environment: Environment, cluster: LocalCluster) -> None:
    # SQLAlchemy 1.3 is older than Python 3.12.
    strict = ("-W", "error") if adapter != "asyncpgsa" or sys.version_info < (3, 12) else ()
    done = run(environment.python, *strict, program_of(adapter), cluster.dsn)
    printed = EXPECTED[adapter].prints + "\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


def compared(name: str) -> list[str]:
    """The cells of the row that the comparison of all adapters has for this one."""
    pattern = rf"^\| `{re.escape(name)}` \| (.*) \|$"
    (row,) = re.findall(pattern, COMPARISON.read_text(), re.MULTILINE)
    return str(row).split(" | ")


@pytest.mark.parametrize("package", EXPECTED)
def test_the_comparison_tells_the_versions(package: str) -> None:
    project = tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text())["project"]
    core, *required = project["dependencies"]
    for extra in project.get("optional-dependencies", {}).values():
        required += extra
    assert core == "pyscopg2-core>=0.1,<1"
    assert re.findall("`(.*?)`", compared(name_of(package))[0]) == required


def test_the_comparison_tells_the_sizes(
    adapter: str, environment: Environment, cluster: LocalCluster
) -> None:
    options, most, *_ = compared(f"pyscopg2.{adapter}")
    names = re.findall(r"`(\w+)=", options)
    told = (environment.python, "-c", TELL_SIZES, adapter, EXPECTED[adapter].sizes_of, cluster.dsn)
    assert check(*told, *names) == f"{options.replace('`', '')}\n{most}\n"


@pytest.fixture
def folder(adapter: str, tmp_path: Path) -> Path:
    """Far from our settings: a program, and one whose mistakes must be reported."""
    (tmp_path / "program.py").write_text(program_of(adapter).read_text())
    mistakes = (PROGRAMS / "mistakes.py").read_text().replace("ADAPTER", adapter)
    (tmp_path / "mistakes.py").write_text(mistakes)
    return tmp_path


def wrong_lines(folder: Path) -> set[tuple[str, int]]:
    lines = (folder / "mistakes.py").read_text().splitlines()
    return {("mistakes.py", at) for at, line in enumerate(lines, 1) if line.endswith("# wrong")}


def test_mypy_strict_reports_the_mistakes_alone(
    adapter: str, environment: Environment, folder: Path, mypy_cache: Path
) -> None:
    options = ("--strict", "--config-file=", "--output=json")
    mypy = (sys.executable, "-m", "mypy", "--python-executable", environment.python)
    done = run(*mypy, *options, "--cache-dir", mypy_cache, ".", cwd=folder)
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = {(each["file"], each["line"]) for each in reports}
    assert found == wrong_lines(folder), done.stdout + done.stderr


def test_pyright_strict_reports_the_mistakes_alone(
    adapter: str, environment: Environment, folder: Path
) -> None:
    if adapter not in PYRIGHT:
        pytest.skip("`hatch run adapters:types` runs pyright on it")
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    pyright = (sys.executable, "-m", "pyright", "--pythonpath", environment.python)
    done = run(*pyright, "--outputjson", "--project", folder)
    found = {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        for each in json.loads(done.stdout)["generalDiagnostics"]
    }
    assert found == wrong_lines(folder), done.stdout + done.stderr
