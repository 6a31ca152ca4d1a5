"""What each distribution carries to an index, and what its page there says."""

import json
import os
import posixpath
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
REPOSITORY = "https://github.com/pyscopg2/pyscopg2"
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
EXAMPLES = sorted(path.parent for path in ROOT.glob("examples/*/pyproject.toml"))

package_by_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)


def settings(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


@cache
def metadata(package: Path) -> dict[str, Any]:
    """As the build backend tells it."""
    command = [sys.executable, "-m", "hatchling", "metadata", "--compact"]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def pitch() -> str:
    """What stands between the front page's title and its first program."""
    text = (ROOT / "README.md").read_text()
    found = re.match(r"# pyscopg2\n\n(.*?)\n\n```python", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("folder", PACKAGES + EXAMPLES, ids=lambda path: path.name)
def test_the_license_is_a_file_of_its_own(folder: Path) -> None:
    assert not (folder / "LICENSE").is_symlink()
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert settings(folder)["project"]["license-files"] == ["LICENSE"]


@package_by_package
def test_the_metadata_that_all_share(package: Path) -> None:
    project = settings(package)["project"]
    assert project["name"] == f"pyscopg2-{package.name.replace('_', '-')}"
    assert project["license"] == "Apache-2.0"
    assert project["requires-python"] == ">=3.11"
    ((name, email),) = (author.values() for author in project["authors"])
    assert name == "The pyscopg2 maintainers"
    assert "@" in email
    assert project["urls"] == {
        "Homepage": REPOSITORY,
        "Documentation": f"{REPOSITORY}/tree/main/packages/{package.name}#readme",
        "Changelog": f"{REPOSITORY}/blob/main/packages/{package.name}/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
        "Source": f"{REPOSITORY}/tree/main/packages/{package.name}",
    }
    if package.name != "core":
        assert "pyscopg2-core>=0.1,<1" in project["dependencies"]


@package_by_package
def test_its_page_has_the_pitch_its_readme_and_the_latest_changes(package: Path) -> None:
    told = metadata(package)
    page = told["readme"]["text"]
    assert told["readme"]["content-type"] == "text/markdown"
    assert page.startswith(f"# {told['name']}\n\n{pitch()}\n\n")
    readme = (package / "README.md").read_text()
    headings = [line for line in readme.splitlines() if line.startswith("## ")]
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        *headings,
        f"## Changes in {told['version']}",
    ]
    released = (package / "CHANGELOG.md").read_text().partition(f"## {told['version']}")[2]
    assert page.endswith(released.partition("\n## ")[0].strip() + "\n")


@package_by_package
def test_links_on_its_page_are_absolute_and_lead_to_files_of_that_release(package: Path) -> None:
    told = metadata(package)
    release = f"{told['name']}-{told['version']}/"
    # Where GitHub shows a file, and where it gives it away as it is: a picture.
    tagged = f"{REPOSITORY}/blob/{release}"
    pictures = REPOSITORY.replace("github.com", "raw.githubusercontent.com") + f"/{release}"
    links = re.findall(r"\]\(([^)\s]+)\)", told["readme"]["text"])
    assert links
    ours = [
        link.removeprefix(tagged).removeprefix(pictures)
        for link in links
        if link.startswith((tagged, pictures))
    ]
    for name in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", told["readme"]["text"]):
        assert name.startswith(pictures), name
    assert all(link.startswith("https://") for link in links), links
    relative = re.findall(r"\]\((?!https://)([^)\s]+)\)", (package / "README.md").read_text())
    inside = [posixpath.normpath(f"packages/{package.name}/{link}") for link in relative]
    assert ours == inside
    for path in ours:
        assert (ROOT / path.partition("#")[0]).exists(), path


def test_towncrier_finds_the_fragments_of_each() -> None:
    towncrier = tomllib.loads((ROOT / "towncrier.toml").read_text())["tool"]["towncrier"]
    kinds = "|".join(kind["directory"] for kind in towncrier["type"])
    for package in PACKAGES:
        changelog = (package / towncrier["filename"]).read_text()
        assert changelog.count(towncrier["start_string"]) == 1, package
        assert changelog.startswith("# Changelog\n\n## Unreleased\n\n"), package
        for path in (package / towncrier["directory"]).iterdir():
            if path.name != ".gitignore":
                assert re.fullmatch(rf"\+[a-z0-9-]+\.({kinds})\.md", path.name), path
                assert path.read_text().strip(), path


def test_a_release_moves_the_fragments_into_the_changelog(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    (folder / "changelog.d").mkdir(parents=True)
    core = ROOT / "packages/core/CHANGELOG.md"
    (folder / "CHANGELOG.md").write_text(core.read_text())
    (folder / "changelog.d/+one.fixed.md").write_text("A fault.\n")
    subprocess.run(
        [
            *(sys.executable, "-m", "towncrier", "build", "--config", ROOT / "towncrier.toml"),
            *("--dir", folder, "--yes", "--version", "9.0", "--date", "2030-01-01"),
        ],
        check=True,
        cwd=tmp_path,
        env=os.environ | {"GIT_DIR": os.devnull},
    )
    text = (folder / "CHANGELOG.md").read_text()
    assert "\n## 9.0 (2030-01-01)\n\n### Fixed\n\n- A fault.\n" in text
    assert not list((folder / "changelog.d").iterdir())
