"""The workflows, which can't run here, have the form that GitHub wants, and do what is tried."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tools.site.pages import ROOT

WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yaml"))


def test_both_are_of_the_form(tmp_path: Path) -> None:
    assert [path.stem for path in WORKFLOWS] == ["release", "site"]
    assert checked(*WORKFLOWS) == 0
    broken = tmp_path / "broken.yaml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on", "runs_on"))
    assert checked(broken) == 1


def checked(*paths: Path) -> int:
    """By GitHub's own schema, as the tool has it."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    done = subprocess.run(
        [*command, "vendor.github-workflows", *map(str, paths)], capture_output=True
    )
    return done.returncode


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_it_may_do_no_more_than_it_says(path: Path) -> None:
    text = path.read_text()
    assert "\npermissions:\n  contents: read\n\n" in text
    assert text.count("actions/checkout") == text.count("persist-credentials: false")


def test_the_tag_chooses_its_distribution(tmp_path: Path) -> None:
    text = (ROOT / ".github/workflows/release.yaml").read_text()
    _, _, after = text.partition("        run: |\n")
    script = after.partition("      - uses")[0]
    names = ("pyscopg2_core-0.2.0", "pyscopg2_aiopg_sa-0.2.0", "pyscopg2_aiopg-0.2.0")
    (tmp_path / "dist").mkdir()
    for name in names:
        (tmp_path / "dist" / f"{name}.tar.gz").touch()
        (tmp_path / "dist" / f"{name}-py3-none-any.whl").touch()
    bash = shutil.which("bash")
    assert bash is not None
    command = [bash, "-euc", script]
    subprocess.run(command, cwd=tmp_path, check=True, env={"TAG": "pyscopg2-aiopg-sa-0.2.0"})
    assert sorted(path.name for path in (tmp_path / "chosen").iterdir()) == [
        "pyscopg2_aiopg_sa-0.2.0-py3-none-any.whl",
        "pyscopg2_aiopg_sa-0.2.0.tar.gz",
    ]
