"""The programs before, with other libraries, and after: all of them run."""

from pathlib import Path

import pytest
from tests.support.programs import PLACEHOLDER, blocks, run_program
from tools.site.pages import DOCS, ROOT

from pyscopg2.testing.cluster import LocalCluster

PAGES = sorted(path for path in (ROOT / DOCS / "coming-from").glob("*.md") if path.stem != "README")
PROGRAMS = [
    pytest.param(text, id=f"{path.stem}:{line}")
    for path in PAGES
    for line, text in blocks(path.read_text(), "python")
]


def test_each_page_has_one_before_and_one_after() -> None:
    assert len(PROGRAMS) == 2 * len(PAGES)
    for path in PAGES:
        before, after = (text for _, text in blocks(path.read_text(), "python"))
        assert "import PoolManager" in after
        assert "pyscopg2" in after
        assert "pyscopg2" not in before


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_runs(program: str, cluster: LocalCluster, tmp_path: Path) -> None:
    for place, dsn in (
        (PLACEHOLDER, cluster.dsn),
        # Where HAProxy would lead.
        ("postgresql://app:secret@haproxy:5000/app", cluster.primary.dsn),
        ("postgresql://app:secret@haproxy:5001/app", cluster.replicas[0].dsn),
    ):
        program = program.replace(place, dsn)
    run_program(program, tmp_path)
