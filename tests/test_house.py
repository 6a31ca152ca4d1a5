"""Who may import whom, and what each distribution has."""

import ast
import sys
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
    "validity": {"dsn", "errors"},
    "resolve": {"dsn", "errors", "passfile", "service_file", "validity"},
    "demands": {"dsn", "resolve"},
    "tls": set(),
    "adapter": {"dsn"},
    "stopwatch": set(),
    "alarm": set(),
    "watchdog": set(),
    "background": set(),
    "deadline": set(),
    "hangup": set(),
    "faults": set(),
    "probe": set(),
    "topology": {"probe"},
    "store": {"topology"},
    "selection": {"topology"},
    "journal": {"topology"},
    "spell": {"adapter", "selection"},
    "queue": {"adapter", "selection", "spell"},
    "line": {"adapter", "queue", "spell"},
    "places": {"adapter", "line", "queue", "selection", "spell", "topology"},
    "checkout": {
        "adapter",
        "background",
        "deadline",
        "places",
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
    "acquire": {
        "adapter",
        "alarm",
        "checkout",
        "deadline",
        "errors",
        "faults",
        "line",
        "places",
        "queue",
        "spell",
        "watchdog",
    },
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
    # mypy looks in the namespace, pyright in the packages.
    for package in ROOT.glob("packages/*/src/pyscopg2/*/__init__.py"):
        assert package.with_name("py.typed").exists(), package
    assert list(ROOT.glob("packages/*/src/pyscopg2/py.typed")) == [CORE / "py.typed"]


def test_every_distribution_has_its_papers() -> None:
    for package in PACKAGES:
        for name in ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"):
            assert (package / name).is_file(), package / name
