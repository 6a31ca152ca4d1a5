"""Which file of the repository becomes which page of the site."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]

SECTIONS = {
    "frameworks": "Frameworks",
    "coming-from": "Coming from",
    "production": "In production",
}
"""Folders of packages/core/docs: each is a section, and whatever page stands there is in it."""

GUIDE = (
    "quick-start",
    "fresh-reads",
    "attempts",
    "observing",
    "balancing",
    "dsn",
    "adapters",
    "faults",
    "benchmarks",
    "write-an-adapter",
    "architecture",
)
"""The pages of packages/core/docs that the guide begins with, in this order; others follow."""

API = {
    "base": ("pyscopg2.base",),
    "balancer_policy": ("pyscopg2.balancer_policy",),
    "errors": ("pyscopg2.core.errors",),
    "topology": ("pyscopg2.core.topology",),
    "events": ("pyscopg2.core.events",),
    "statistics": ("pyscopg2.core.statistics",),
    "explanation": ("pyscopg2.core.diagnosis.standing",),
    "wal": ("pyscopg2.core.wal",),
    "causal": ("pyscopg2.core.causal",),
    "dsn": ("pyscopg2.core.dsn",),
    "adapter": ("pyscopg2.core.adapter",),
    "aiopg": ("pyscopg2.aiopg",),
    "aiopg_sa": ("pyscopg2.aiopg_sa",),
    "asyncpg": ("pyscopg2.asyncpg",),
    "asyncpgsa": ("pyscopg2.asyncpgsa",),
    "psycopg": ("pyscopg2.psycopg",),
    "sqlalchemy": ("pyscopg2.sqlalchemy",),
    "asgi": ("pyscopg2.asgi",),
    "opentelemetry": ("pyscopg2.opentelemetry",),
    "prometheus": ("pyscopg2.prometheus",),
    "testing": (
        "pyscopg2.testing.cluster",
        "pyscopg2.testing.fault_proxy",
        "pyscopg2.testing.fake",
        "pyscopg2.testing.fake_server",
        "pyscopg2.testing.virtual_time",
        "pyscopg2.testing.bench",
        "pyscopg2.testing.postgres",
        "pyscopg2.testing.contract",
        "pyscopg2.testing.manager_contract",
    ),
}
"""The pages of the reference, and the public modules on each."""

ELSEWHERE = {
    "pyscopg2.base": "WalPosition",
    "pyscopg2.core.diagnosis.standing": "Hindrance",
}
"""What two modules have is told of on one page alone."""

VALUES = {
    "pyscopg2.core.statistics": ("BOUNDS",),
    "pyscopg2.testing.cluster": ("Role", "StopMode"),
}
"""Public names of values and of types: Sphinx documents no such of another module by itself."""

PAPERS = {
    "CONTRIBUTING.md": "contributing.md",
    "RELEASING.md": "releasing.md",
    "SECURITY.md": "security.md",
}

_HANDED_ON = re.compile(r"^from (pyscopg2[\w.]+) import", re.MULTILINE)

DOCS = PurePosixPath("packages/core/docs")


@dataclass(frozen=True)
class Page:
    source: PurePosixPath
    """In the repository."""
    path: PurePosixPath
    """On the site, still as a text: ``production/patroni.md``."""


def pages(root: Path = ROOT) -> dict[PurePosixPath, Page]:
    """All that come from a file of their own, by that."""
    found = [Page(PurePosixPath("README.md"), PurePosixPath("index.md"))]
    found += [Page(PurePosixPath(name), PurePosixPath(path)) for name, path in PAPERS.items()]
    for path in sorted(root.glob("packages/core/docs/**/*.md")):
        source = PurePosixPath(path.relative_to(root).as_posix())
        place = source.relative_to(DOCS)
        found.append(Page(source, place.parent / "index.md" if place.stem == "README" else place))
    for path in sorted(root.glob("packages/*/README.md")):
        name = path.parent.name
        source = PurePosixPath(f"packages/{name}/README.md")
        found.append(Page(source, PurePosixPath(f"packages/{name}.md")))
        for other in sorted(path.parent.glob("docs/**/*.md")):
            if name != "core":
                place = PurePosixPath(f"packages/{name}-{other.name}")
                found.append(Page(PurePosixPath(other.relative_to(root).as_posix()), place))
        source = PurePosixPath(f"packages/{name}/CHANGELOG.md")
        found.append(Page(source, PurePosixPath(f"changes/{name}.md")))
    for path in sorted(root.glob("examples/*/README.md")):
        source = PurePosixPath(path.relative_to(root).as_posix())
        found.append(Page(source, PurePosixPath(f"examples/{path.parent.name}.md")))
    return {page.source: page for page in found}


def api_pages(root: Path = ROOT) -> dict[PurePosixPath, PurePosixPath]:
    """The page of the reference that a module's source is on: a public one, or one whose names a
    public one hands on."""
    found: dict[PurePosixPath, PurePosixPath] = {}
    for name, modules in API.items():
        page = PurePosixPath(f"api/{name}.md")
        for module in modules:
            path = source(root, module)
            found[_relative(path, root)] = page
            for inner in _HANDED_ON.findall(path.read_text()):
                if path.name == "__init__.py" and inner.startswith(f"{module}."):
                    found.setdefault(_relative(source(root, inner), root), page)
    return found


def _relative(path: Path, root: Path) -> PurePosixPath:
    return PurePosixPath(path.relative_to(root).as_posix())


def source(root: Path, module: str) -> Path:
    """Of a module."""
    place = module.replace(".", "/")
    for pattern in (f"packages/*/src/{place}.py", f"packages/*/src/{place}/__init__.py"):
        for path in root.glob(pattern):
            return path
    raise ValueError(f"no source of {module}")
