"""Who may import whom, and what each distribution has."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
CORE = ROOT / "packages/core/src/pyscopg2"
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
EXAMPLES = sorted(ROOT.glob("examples/*/src/**/*.py"))

# Which room of the core knows which: no more, and no less.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "wal": set(),
    "causal": {"wal"},
    "diagnosis": set(),
    "balancer_policy": set(),
    "arguments": {"balancer_policy", "wal"},
    "dsn": {"diagnosis", "errors"},
    "adapter": {"dsn"},
    "timing": {"diagnosis"},
    "topology": {"diagnosis", "timing", "wal"},
    "events": {"diagnosis", "timing", "topology"},
    "statistics": {"diagnosis", "topology"},
    "monitoring": {"adapter", "diagnosis", "dsn", "timing", "topology"},
    "checkout": {
        "adapter",
        "balancer_policy",
        "causal",
        "diagnosis",
        "dsn",
        "errors",
        "events",
        "monitoring",
        "statistics",
        "timing",
        "topology",
        "wal",
    },
    "attempts": {"adapter", "checkout", "diagnosis", "errors"},
    "lifecycle": {
        "adapter",
        "balancer_policy",
        "checkout",
        "diagnosis",
        "dsn",
        "errors",
        "events",
        "monitoring",
        "statistics",
        "timing",
        "topology",
    },
    "base": {
        "adapter",
        "arguments",
        "attempts",
        "balancer_policy",
        "causal",
        "checkout",
        "diagnosis",
        "dsn",
        "errors",
        "events",
        "lifecycle",
        "statistics",
        "topology",
        "wal",
    },
}

# What an adapter may enter.
OPEN = ("pyscopg2.base", "pyscopg2.core.adapter", "pyscopg2.core.dsn", "pyscopg2.core.errors")

# What `pyscopg2.asgi` may enter: it has no driver, takes part in causal sessions, and shows a
# manager.
OPEN_TO_ASGI = (
    "pyscopg2.base",
    "pyscopg2.core.causal",
    "pyscopg2.core.events",
    "pyscopg2.core.statistics",
    "pyscopg2.core.timing",
    "pyscopg2.core.topology",
    "pyscopg2.core.wal",
)

# What is public, beside the adapters' kit, and what packages that show a manager need beside it.
PUBLIC = (
    "pyscopg2.base",
    "pyscopg2.core.dsn",
    "pyscopg2.core.errors",
    "pyscopg2.core.events",
    "pyscopg2.core.statistics",
    "pyscopg2.core.topology",
    "pyscopg2.core.wal",
)
TOLD = {
    "cli": {"asyncpg", "click", "rich"},
    "opentelemetry": {"opentelemetry"},
    "prometheus": {"prometheus_client"},
}

# The command has a driver, and quotes what servers say.
OPEN_TO_CLI = ("pyscopg2.asyncpg", "pyscopg2.core.diagnosis.redaction")

DRIVERS = {
    "aiopg": {"aiopg", "psycopg2"},
    "aiopg_sa": {"aiopg", "psycopg2", "sqlalchemy"},
    "asyncpg": {"asyncpg"},
    "asyncpgsa": {"asyncpg", "asyncpgsa", "sqlalchemy"},
    "psycopg": {"psycopg", "psycopg_pool"},
    "sqlalchemy": {"asyncpg", "psycopg", "sqlalchemy"},
}


EXAMPLE_DRIVERS = {
    "adapter_template": "psycopg",
    "pg8000_threads": "pg8000",
    "psqlpy_pool": "psqlpy",
}


def imports(path: Path) -> Iterator[str]:
    """The full names of what a module imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            if node.module == "pyscopg2.core":
                yield from (f"pyscopg2.core.{alias.name}" for alias in node.names)
            else:
                yield node.module


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.partition(".")[0] == "pyscopg2"}


def foreign(path: Path) -> set[str]:
    roots = {name.partition(".")[0] for name in imports(path)}
    return roots - sys.stdlib_module_names - {"pyscopg2"}


def room(module: str) -> str:
    """Of the full name of a module: what stands below `pyscopg2`, or below the core."""
    names = module.split(".")
    return names[2] if names[1] == "core" else names[1]


def core_modules() -> dict[str, Path]:
    """By full name, the rooms' own `__init__` included."""
    found: dict[str, Path] = {}
    for path in CORE.rglob("*.py"):
        names = path.relative_to(CORE.parent).with_suffix("").parts
        found[".".join(name for name in names if name != "__init__")] = path
    del found["pyscopg2.core"]
    return found


def test_the_rooms_know_each_other_as_is_said_here() -> None:
    arrows: dict[str, set[str]] = {}
    for module, path in core_modules().items():
        known = arrows.setdefault(room(module), set())
        known |= {room(name) for name in ours(path)} - {room(module)}
    assert arrows == ROOMS


def test_a_room_knows_only_those_above_it_in_the_list() -> None:
    for number, (name, known) in enumerate(ROOMS.items()):
        assert known <= set(list(ROOMS)[:number]), name


def test_no_modules_go_round_in_a_circle() -> None:
    modules = core_modules()
    arrows = {module: ours(path) & modules.keys() for module, path in modules.items()}
    assert len(list(TopologicalSorter(arrows).static_order())) == len(modules)


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.stem)
def test_the_core_needs_the_standard_library_alone(path: Path) -> None:
    assert foreign(path) == set()


def test_an_adapter_knows_the_core_and_its_driver_never_another_adapter() -> None:
    for package in PACKAGES:
        if package.name in {"asgi", "cli", "core", "opentelemetry", "prometheus", "testing"}:
            continue
        for path in package.rglob("src/**/*.py"):
            own = f"pyscopg2.{package.name}"
            for name in ours(path):
                assert name.startswith((*OPEN, own)), f"{path}: {name}"
            assert foreign(path) <= DRIVERS[package.name], path


def test_asgi_knows_what_it_may_of_the_core_and_needs_the_standard_library_alone() -> None:
    paths = sorted(ROOT.glob("packages/asgi/src/**/*.py"))
    entered: set[str] = set()
    for path in paths:
        assert foreign(path) == set(), path
        entered |= {name for name in ours(path) if not name.startswith("pyscopg2.asgi")}
    assert paths
    assert {".".join(name.split(".")[:3]) for name in entered} == set(OPEN_TO_ASGI)


@pytest.mark.parametrize(("package", "needs"), TOLD.items())
def test_what_shows_a_manager_knows_what_is_public_of_it(package: str, needs: set[str]) -> None:
    paths = sorted(ROOT.glob(f"packages/{package}/src/**/*.py"))
    assert paths
    opened = OPEN_TO_CLI if package == "cli" else ()
    for path in paths:
        for name in ours(path):
            known = name.startswith((*PUBLIC, *opened, f"pyscopg2.{package}"))
            assert known, f"{path}: {name}"
        assert foreign(path) <= needs, path


def test_an_example_knows_what_a_stranger_would() -> None:
    assert {path.relative_to(ROOT).parts[1] for path in EXAMPLES} == EXAMPLE_DRIVERS.keys()
    for path in EXAMPLES:
        example, own = path.relative_to(ROOT).parts[1], path.parent.name
        for name in ours(path):
            assert name.startswith(OPEN), f"{path}: {name}"
        assert foreign(path) - {own} <= {EXAMPLE_DRIVERS[example]}, path


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
