"""The drawings, as a browser shows them."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from tools.site.pages import DOCS, ROOT
from tools.status_page.browser import command, looks_like

DIAGRAMS = sorted((ROOT / DOCS / "diagrams").glob("*.svg"))

LOOK = """
const root = document.documentElement, page = root.getBoundingClientRect();
JSON.stringify({
    page: [page.left, page.top, page.right, page.bottom],
    texts: [...root.querySelectorAll("text")].map(each => {
        const box = each.getBoundingClientRect();
        return [each.textContent, box.left, box.top, box.right, box.bottom];
    }),
    paper: getComputedStyle(root.querySelector(".page")).fill,
    ink: getComputedStyle(root.querySelector("text")).fill,
    title: root.querySelector("title").textContent,
})
"""


def look(driver: Chrome, path: Path, *, dark: bool) -> dict[str, Any]:
    looks_like(driver, 900, 600, dark=dark)
    driver.get(path.as_uri())
    told = command(driver, "Runtime.evaluate", {"expression": LOOK, "returnByValue": True})
    found: dict[str, Any] = json.loads(told["result"]["value"])
    return found


def test_there_are_some() -> None:
    names = {path.stem for path in DIAGRAMS}
    assert names >= {"architecture", "failover", "fencing", "fresh-reads"}


@pytest.mark.parametrize("path", DIAGRAMS, ids=lambda path: path.stem)
def test_no_text_is_cut_or_covers_another(driver: Chrome, path: Path) -> None:
    seen = look(driver, path, dark=False)
    left, top, right, bottom = seen["page"]
    assert seen["title"]
    assert len(seen["texts"]) > 5
    for text, x, y, to_x, to_y in seen["texts"]:
        assert left <= x < to_x <= right, text
        assert top <= y < to_y <= bottom, text
    for one, other in itertools.combinations(seen["texts"], 2):
        apart_x = one[3] <= other[1] or other[3] <= one[1]
        # Lines that follow each other may share the room above their letters.
        apart_y = one[4] <= other[2] + 2 or other[4] <= one[2] + 2
        assert apart_x or apart_y, (one, other)


@pytest.mark.parametrize("path", DIAGRAMS, ids=lambda path: path.stem)
def test_it_can_be_read_in_the_light_and_in_the_dark(driver: Chrome, path: Path) -> None:
    light, dark = (look(driver, path, dark=dark) for dark in (False, True))
    for seen, paper_is_bright in ((light, True), (dark, False)):
        paper, ink = brightness(seen["paper"]), brightness(seen["ink"])
        assert (paper > ink) is paper_is_bright
        assert abs(paper - ink) > 150


def brightness(colour: str) -> float:
    """Of ``rgb(…)``, from 0 to 255."""
    parts = [float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    return sum(parts) / 3
