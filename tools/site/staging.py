"""The texts of the site, laid out as Sphinx reads them."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from .links import Links
from .pages import (
    API,
    DOCS,
    ELSEWHERE,
    GUIDE,
    PAPERS,
    ROOT,
    SECTIONS,
    VALUES,
    api_pages,
    pages,
    source,
)

_UNRELEASED = re.compile(r"^## Unreleased\n.*?(?=^<!-- towncrier)", re.DOTALL | re.MULTILINE)


def stage(into: Path, root: Path = ROOT) -> None:
    """Write all texts and pictures into a folder, which is empty.

    `BrokenLinkError`: a link leads to no file of the repository.
    """
    known = pages(root)
    links = Links(root, known, api_pages(root))
    for page in known.values():
        text = (root / page.source).read_text()
        if page.source.name == "CHANGELOG.md":
            name = page.path.stem.replace("_", "-")
            text = _with_news(root / page.source.parent, text)
            text = text.replace("# Changelog", f"# pyscopg2-{name}", 1)
        _write(into, page.path, links.rewritten(page, text))
    # Pages that stand in no file of their own.
    paths = [page.path for page in known.values()]
    _append(into / "index.md", _navigation(paths))
    for section in _sections(paths):
        _complete(into, section, paths)
    architecture = known[DOCS / "architecture.md"]
    glossary = (root / architecture.source).read_text().partition("\n## Glossary\n")[2]
    glossary = links.rewritten(architecture, f"# Glossary\n{glossary}")
    _write(into, PurePosixPath("glossary.md"), glossary)
    for name, modules in API.items():
        _write(into, PurePosixPath(f"api/{name}.md"), _reference(modules))
    _index(into, "api", "API", "Every public name: what it takes, gives back and raises.", API)
    names = [path.stem for path in paths if path.parent.name == "changes"]
    _index(into, "changes", "Changes", "Each distribution has versions of its own.", names)
    names = [path.stem for path in paths if path.parent.name == "packages"]
    _index(into, "packages", "Packages", "One to install for each driver and each purpose.", names)
    names = [path.stem for path in paths if path.parent.name == "examples"]
    _index(into, "examples", "Adapters as examples", "As others would write them.", names)
    for picture in links.pictures:
        (into / picture).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / picture, into / picture)


def _write(into: Path, path: PurePosixPath, text: str) -> None:
    place = into / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def _tree(entries: Iterable[str], caption: str = "", *options: str) -> str:
    lines = ["", "```{toctree}"]
    lines += [f":caption: {caption}"] if caption else []
    return "\n".join([*lines, *options, "", *entries, "```", ""])


def _navigation(paths: list[PurePosixPath]) -> str:
    there = {path.stem for path in paths if path.parent == PurePosixPath()}
    others = there - {"index", *GUIDE} - {PurePosixPath(path).stem for path in PAPERS.values()}
    guide = [name for name in GUIDE if name in there]
    return (
        _tree([*guide, *sorted(others), "glossary"], "Guide", ":hidden:")
        + _tree([f"{section}/index" for section in _sections(paths)], "In practice", ":hidden:")
        + _tree(["packages/index", "api/index", "examples/index"], "Reference", ":hidden:")
        + _tree(["changes/index", "contributing", "releasing", "security"], "Project", ":hidden:")
    )


def _sections(paths: list[PurePosixPath]) -> list[str]:
    """Those that have pages."""
    folders = {path.parent.name for path in paths}
    return [section for section in SECTIONS if section in folders]


def _complete(into: Path, section: str, paths: list[PurePosixPath]) -> None:
    """Give a section its navigation, and a first page where it has none. Its pages stand in the
    order in which the first page links to them."""
    names = sorted(path.stem for path in paths if path.parent.name == section)
    index = into / section / "index.md"
    if not index.exists():
        _index(into, section, SECTIONS[section], "", names)
        return
    names.remove("index")
    text = index.read_text()
    names.sort(key=lambda name: (f"({name}.md" not in text, text.find(f"({name}.md")))
    _append(index, _tree(names, "", ":hidden:"))


def _index(into: Path, folder: str, title: str, text: str, names: Iterable[str]) -> None:
    _write(into, PurePosixPath(folder, "index.md"), f"# {title}\n\n{text}\n{_tree(names)}")


def _reference(modules: tuple[str, ...]) -> str:
    title = modules[0] if len(modules) == 1 else modules[0].rpartition(".")[0]
    parts = [f"# `{title}`\n"]
    for module in modules:
        if len(modules) > 1:
            parts.append(f"## `{module}`\n")
        values = [f"\n.. autodata:: {module}.{name}\n" for name in VALUES.get(module, ())]
        text = f".. automodule:: {module}\n{_options(module)}{''.join(values)}"
        parts.append(f"```{{eval-rst}}\n{text}```\n")
    return "\n".join(parts)


def _options(module: str) -> str:
    """A module that says what is public of it has that from others, too."""
    lines = [f"   :exclude-members: {ELSEWHERE[module]}\n"] if module in ELSEWHERE else []
    if "\n__all__ = " in source(ROOT, module).read_text():
        lines.append("   :imported-members:\n")
    return "".join(lines)


def _with_news(package: Path, text: str) -> str:
    """The changelog with what the next release will tell of, where there is something."""
    where = ("--config", str(ROOT / "towncrier.toml"), "--dir", str(package))
    command = [sys.executable, "-m", "towncrier", "build", *where]
    command += ["--draft", "--version", "Unreleased", "--date", ""]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    news = re.sub(r"^## Unreleased.*$", "## Unreleased", done.stdout.strip(), flags=re.MULTILINE)
    return _UNRELEASED.sub(lambda _: f"{news}\n\n" if "\n" in news else "", text)
