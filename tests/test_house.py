"""Who may import whom, and what each distribution ships."""

import ast
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
CORE = ROOT / "packages/core/src/pyscopg2"
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
EXAMPLES = sorted(ROOT.glob("examples/*/src/**/*.py"))

# What each module of the core may import from the core. A module that is not here fails the test.
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "dsn": {"errors"},
    "passfile": set(),
    "service_file": {"dsn", "errors"},
    "demands": {"dsn"},
    "resolve": {"dsn", "errors", "passfile", "service_file"},
    "adapter": {"dsn"},
    "stopwatch": set(),
    "alarm": set(),
    "watchdog": set(),
    "background": set(),
    "deadline": set(),
    "faults": set(),
    "probe": set(),
    "topology": {"probe"},
    "store": {"topology"},
    "selection": {"topology"},
    "journal": {"topology"},
    "spell": {"adapter", "selection"},
    "line": {"selection", "spell"},
    "places": {"adapter", "line", "selection", "spell", "topology"},
    "checkout": {
        "adapter",
        "background",
        "deadline",
        "errors",
        "faults",
        "line",
        "places",
        "selection",
        "spell",
        "store",
        "topology",
        "watchdog",
    },
    "monitor": {
        "adapter",
        "alarm",
        "background",
        "dsn",
        "faults",
        "probe",
        "stopwatch",
        "store",
        "topology",
    },
    "acquire": {"adapter", "checkout", "selection"},
}


BELOW_ADAPTERS = ("pyscopg2.balancer_policy", "pyscopg2.base", "pyscopg2.core")

DRIVERS = {
    "aiopg": {"aiopg", "psycopg2"},
    "aiopg_sa": {"aiopg", "psycopg2", "sqlalchemy"},
    "asyncpg": {"asyncpg"},
    "asyncpgsa": {"asyncpg", "asyncpgsa", "sqlalchemy"},
    "psycopg": {"psycopg", "psycopg_pool"},
    "sqlalchemy": {"asyncpg", "psycopg", "sqlalchemy"},
}


def imports(path: Path) -> Iterator[str]:
    """The full names of what a module imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            if node.module == "pyscopg2.core":
                yield from (f"pyscopg2.core.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.partition(".")[0] == "pyscopg2"}


def foreign(path: Path) -> set[str]:
    roots = {name.partition(".")[0] for name in imports(path)}
    return roots - sys.stdlib_module_names - {"pyscopg2"}


@pytest.mark.parametrize("path", sorted(CORE.glob("core/*.py")), ids=lambda path: path.stem)
def test_the_core_imports_downhill_only(path: Path) -> None:
    if path.stem == "__init__":
        assert ours(path) == set()
        return
    allowed = {f"pyscopg2.core.{name}" for name in LAYERS[path.stem]}
    assert ours(path) - {"pyscopg2.core"} <= allowed


def test_the_layers_have_no_circle_and_no_leftover() -> None:
    for name, below in LAYERS.items():
        assert (CORE / f"core/{name}.py").exists(), name
        assert list(LAYERS).index(name) >= max(map(list(LAYERS).index, below), default=0), name


@pytest.mark.parametrize(
    "path", sorted(CORE.glob("balancer_policy/*.py")), ids=lambda path: path.stem
)
def test_policies_know_the_selection_only(path: Path) -> None:
    names = {n for n in ours(path) if not n.startswith("pyscopg2.balancer_policy")}
    assert names <= {"pyscopg2.core.selection"}


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.stem)
def test_the_core_needs_the_standard_library_alone(path: Path) -> None:
    assert foreign(path) == set()


def test_an_adapter_knows_the_core_and_its_driver_never_another_adapter() -> None:
    for package in PACKAGES:
        if package.name in {"core", "testing"}:
            continue
        for path in package.rglob("src/**/*.py"):
            own = f"pyscopg2.{package.name}"
            for name in ours(path):
                assert name.startswith((*BELOW_ADAPTERS, own)), f"{path}: {name}"
            assert foreign(path) <= DRIVERS[package.name], path


def test_an_example_knows_what_a_stranger_would() -> None:
    assert EXAMPLES
    for path in EXAMPLES:
        own = path.parent.name
        known = {"adapter", "demands", "dsn"}
        assert ours(path) <= {"pyscopg2.base", *(f"pyscopg2.core.{name}" for name in known)}, path
        assert foreign(path) - {own} <= {own.partition("_")[0]}, path


@pytest.mark.parametrize("path", SOURCES + EXAMPLES, ids=lambda path: "/".join(path.parts[-2:]))
def test_no_import_hides_in_a_function(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                lazy = isinstance(inner, ast.Import | ast.ImportFrom)
                # pytest loads plugins always: this one must not need the cluster's dependencies.
                assert not lazy or path.name == "pytest_plugin.py", f"{path}: {node.name}"


@pytest.mark.parametrize("path", SOURCES + EXAMPLES, ids=lambda path: "/".join(path.parts[-2:]))
def test_nobody_reads_anothers_underscore_attributes(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            if node.attr.startswith("__") and node.attr.endswith("__"):
                continue
            owner = node.value
            assert isinstance(owner, ast.Name), f"{path}:{node.lineno}: {node.attr}"
            assert owner.id in {"self", "cls"}, f"{path}:{node.lineno}: {owner.id}.{node.attr}"


def test_nobody_ships_the_namespace_package_and_everybody_is_typed() -> None:
    assert not list(ROOT.glob("packages/*/src/pyscopg2/__init__.py"))
    assert (CORE / "py.typed").exists()
    for package in PACKAGES:
        if package.name != "core":
            assert (package / "src/pyscopg2" / package.name / "py.typed").exists()
            assert not (package / "src/pyscopg2/py.typed").exists()


def test_every_distribution_has_its_papers() -> None:
    for package in PACKAGES:
        for name in ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"):
            assert (package / name).is_file(), package / name


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of each package, by the package's folder name."""
    folder = tmp_path_factory.mktemp("wheels")
    made: dict[str, Path] = {}
    for package in PACKAGES:
        into = folder / package.name
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)]
        subprocess.run(command, cwd=package, check=True, capture_output=True)
        (made[package.name],) = into.glob("*.whl")
    return made


def test_wheels_share_no_file(wheels: dict[str, Path]) -> None:
    seen: dict[str, str] = {}
    for package, wheel in wheels.items():
        for name in zipfile.ZipFile(wheel).namelist():
            assert name not in seen, f"{name} is in {package} and in {seen[name]}"
            seen[name] = package
    assert "pyscopg2/py.typed" in seen
    assert "pyscopg2/__init__.py" not in seen


def installed(venv: Path) -> set[str]:
    command = [sys.executable, "-m", "pip", "--python", str(venv), "list", "--format=freeze"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {line.partition("==")[0].lower() for line in listed.split()}


def install(venv: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(venv), "install", "--quiet"]
    subprocess.run([*command, *arguments], check=True, capture_output=True)


PULLS = {
    "aiopg": {"aiopg", "psycopg2-binary"},
    "aiopg_sa": {"aiopg", "psycopg2-binary", "sqlalchemy"},
    "asyncpg": {"asyncpg"},
    "asyncpgsa": {"asyncpg", "asyncpgsa", "sqlalchemy"},
    "psycopg": {"psycopg", "psycopg-pool"},
    "sqlalchemy": {"sqlalchemy"},
}
"""Which of all these drivers each adapter's wheel brings with it."""


@pytest.mark.parametrize("package", PULLS)
def test_a_wheel_pulls_its_driver_and_no_other(wheels: dict[str, Path], package: str) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command = [*pip, "--report", "-", str(wheels["core"]), str(wheels[package])]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    pulled = {each["metadata"]["name"].lower() for each in json.loads(report)["install"]}
    assert pulled & set().union(*PULLS.values()) == PULLS[package]
    assert "pyscopg2-core" in pulled


def test_the_core_alone_pulls_nothing_and_asyncpgs_adapter_asyncpg_only(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    install(venv, "--no-index", str(wheels["core"]))
    assert installed(venv) == {"pyscopg2-core"}
    install(venv, str(wheels["asyncpg"]))
    assert installed(venv) == {"pyscopg2-core", "pyscopg2-asyncpg", "asyncpg"}
    program = "import pyscopg2.asyncpg; pyscopg2.asyncpg.PoolManager('host=a')"
    subprocess.run([str(venv / "bin/python"), "-c", program], check=True)
