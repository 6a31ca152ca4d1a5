"""Every Python snippet of the documents runs; links and commands in them lead somewhere."""

import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.programs import PLACEHOLDER, blocks, run_program

from pyscopg2.testing.cluster import LocalCluster

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "RELEASING.md",
    ROOT / "SECURITY.md",
    *sorted(ROOT.glob("packages/*/README.md")),
    *sorted(ROOT.glob("packages/*/docs/**/*.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
]
INSTALLED = {
    path.name
    for path in ROOT.glob("packages/*")
    if importlib.util.find_spec(f"pyscopg2.{path.name}") is not None
} | {
    path.name for path in ROOT.glob("examples/*") if importlib.util.find_spec(path.name) is not None
}
"""Each environment runs the snippets of the packages that are installed in it."""


def snippets(language: str) -> list[tuple[str, str]]:
    """Where it stands, and the text."""
    found: list[tuple[str, str]] = []
    for path in DOCUMENTS:
        package = path.relative_to(ROOT).parts[1:2]
        if path.parent != ROOT and not INSTALLED.issuperset(package):
            continue
        if language == "python" and path.parent.name in ("coming-from", "frameworks"):
            continue  # In environments of their own: tests/site and tests/frameworks run them.
        text = path.read_text()
        for line, block in blocks(text, language):
            found.append((f"{path.relative_to(ROOT)}:{line}", block))
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=2) as cluster:
        yield cluster


@pytest.mark.parametrize(
    "snippet", [pytest.param(text, id=where) for where, text in snippets("python")]
)
def test_snippet_runs(snippet: str, cluster: LocalCluster, tmp_path: Path) -> None:
    run_program(snippet.replace(PLACEHOLDER, cluster.dsn), tmp_path)


def test_there_are_snippets_to_run() -> None:
    documents = {where.partition(":")[0] for where, _ in snippets("python")}
    assert {
        "README.md",
        "examples/pg8000_threads/README.md",
        "packages/asyncpg/README.md",
        "packages/core/docs/balancing.md",
    } <= documents


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path}: {target}"


def lines_of(path: Path) -> int:
    """Without blanks and comments; docstrings count."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return sum(1 for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.glob("examples/*/README.md")) if "| lines |" in path.read_text()],
    ids=lambda path: path.parent.name,
)
def test_what_is_said_of_an_examples_length_is_true(path: Path) -> None:
    told = re.findall(r"^\| \[`.*?`\]\((.*?)\) \|.*\| (\d+) \|$", path.read_text(), re.MULTILINE)
    assert told
    assert {name: lines_of(path.parent / name) for name, _ in told} == {
        name: int(lines) for name, lines in told
    }


def test_the_commands_are_scripts_of_the_environment() -> None:
    environments = tomllib.loads((ROOT / "hatch.toml").read_text())["envs"]
    scripts = set(environments["default"]["scripts"])
    for each, like in (
        ("adapters", "adapters"),
        ("newest", "adapters"),
        ("lowest", "lowest"),
        ("lowest-shown", "lowest-shown"),
        ("bench", "bench"),
        ("frameworks", "frameworks"),
        ("page", "page"),
        ("release", "release"),
        ("site", "site"),
        ("supported", "supported"),
    ):
        scripts |= {f"{each}:{name}" for name in environments[like]["scripts"]}
    (matrix,) = environments["adapters"]["matrix"]
    for adapter in matrix["adapter"]:
        scripts |= {f"adapters.{adapter}:{name}" for name in environments["adapters"]["scripts"]}
    template = tomllib.loads((ROOT / "examples/adapter_template/pyproject.toml").read_text())
    scripts |= {f"tests:{name}" for name in template["tool"]["hatch"]["envs"]["tests"]["scripts"]}
    for where, text in snippets("sh"):
        for name in re.findall(r"hatch run (\S+)", text):
            assert name in scripts, f"{where}: {name}"


def test_what_python_says_where_the_adapter_is_not_named() -> None:
    """Nobody ships `pyscopg2/__init__.py`, so that the words are Python's own."""
    with pytest.raises(ImportError) as error:
        exec("from pyscopg2 import PoolManager")
    assert str(error.value) in (ROOT / "README.md").read_text()
