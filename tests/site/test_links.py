"""Links of the repository's texts become the site's."""

from pathlib import Path, PurePosixPath

import pytest
from tools.site.links import BrokenLinkError, Links
from tools.site.pages import Page


@pytest.fixture
def links(tmp_path: Path) -> Links:
    for name in ("README.md", "docs/one.md", "docs/part/two.md", "docs/seen.svg", "src/code.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    known = [
        Page(PurePosixPath("README.md"), PurePosixPath("index.md")),
        Page(PurePosixPath("docs/one.md"), PurePosixPath("one.md")),
        Page(PurePosixPath("docs/part/two.md"), PurePosixPath("part/two.md")),
    ]
    api = {PurePosixPath("src/code.py"): PurePosixPath("api/code.md")}
    return Links(tmp_path, {page.source: page for page in known}, api)


HOME = Page(PurePosixPath("README.md"), PurePosixPath("index.md"))
TWO = Page(PurePosixPath("docs/part/two.md"), PurePosixPath("part/two.md"))


@pytest.mark.parametrize(
    ("page", "text", "there"),
    [
        (HOME, "[a](docs/one.md#b)", "[a](one.md#b)"),
        (HOME, "[`a`](docs/part/two.md)", "[`a`](part/two.md)"),
        (HOME, "[a](src/code.py)", "[a](api/code.md)"),
        (TWO, "[a](../one.md)", "[a](../one.md)"),
        (TWO, "[a](../../README.md)", "[a](../index.md)"),
        (TWO, "[a](../../README.md#how)", "[a](../index.md#how)"),
        (TWO, "![a](../seen.svg)", "![a](../docs/seen.svg)"),
        (TWO, "[a](#b), [c](https://d)", "[a](#b), [c](https://d)"),
        (TWO, "[a](..)", "[a](https://github.com/pyscopg2/pyscopg2/tree/main/docs)"),
        (TWO, "```text\n[a](b.md)\n```\n", "```text\n[a](b.md)\n```\n"),
    ],
)
def test_a_link_is_rewritten(links: Links, page: Page, text: str, there: str) -> None:
    assert links.rewritten(page, text) == there


def test_pictures_are_remembered(links: Links) -> None:
    links.rewritten(TWO, "![a](../seen.svg)")
    assert links.pictures == {PurePosixPath("docs/seen.svg")}


def test_a_link_to_nothing_is_an_error_that_names_it(links: Links) -> None:
    with pytest.raises(BrokenLinkError, match=r"docs/part/two\.md: \.\./three\.md"):
        links.rewritten(TWO, "[a](../three.md)")
