"""The site as its readers meet it."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait
from tests.site.reading import Html, resolved
from tools.site.pages import API, ELSEWHERE, ROOT, source
from tools.site.pages import pages as sources
from tools.status_page.browser import command, looks_like, read_log


def test_all_links_lead_somewhere(site: Path, pages: dict[str, Html]) -> None:
    broken: list[str] = []
    for name, page in pages.items():
        for link in page.links:
            there = resolved(name, link)
            if there is None:
                continue
            place, anchor = there
            known = pages.get(place)
            if known is None:
                if not (site / place.partition("?")[0]).is_file():
                    broken.append(f"{name}: {link}")
            elif anchor and anchor not in known.anchors:
                broken.append(f"{name}: {link}")
    assert broken == []


def test_each_text_of_the_repository_is_a_page(pages: dict[str, Html]) -> None:
    for each in sources().values():
        assert str(each.path.with_suffix(".html")) in pages, each


def test_each_picture_is_told_in_words(pages: dict[str, Html]) -> None:
    pictures = [item for page in pages.values() for item in page.pictures.items()]
    told = [words for place, words in pictures if "_images" in place]
    assert len(told) > 8
    assert [words for words in told if len(words) < 10] == []


def public_names(module: str) -> list[str]:
    """Of ``__all__``, else all that are defined there and begin with no underscore; not the names
    of types, which are no values."""
    tree = ast.parse(source(ROOT, module).read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = list(ast.literal_eval(node.value))
            return names
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
    ]


@pytest.mark.parametrize(
    ("page", "module"), [(page, module) for page, modules in API.items() for module in modules]
)
def test_the_reference_has_each_public_name(page: str, module: str, pages: dict[str, Html]) -> None:
    names = [name for name in public_names(module) if name not in ELSEWHERE.get(module, "")]
    assert names
    missing = [
        name for name in names if f"{module}.{name}" not in pages[f"api/{page}.html"].anchors
    ]
    assert [name for name in missing if not re.fullmatch(r"\w+T", name)] == []


def test_the_reference_has_units_and_errors(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "api/base.html").read_text())
    assert "for all the work of one acquire" in text
    assert "libpq would refuse the DSN, or what it finds beside it" in text
    assert re.search(r"seconds for all of it: to wait for a host", text)


WANTED = [
    "quick-start.html",
    "production/patroni.html",
    "fresh-reads.html",
    "packages/prometheus.html",
    "observing.html",
    "api/errors.html",
    "production/what-a-fault-looks-like.html",
    "glossary.html",
    "api/base.html#pyscopg2.base.BasePoolManager.acquire_replica",
    *(
        str(each.path.with_suffix(".html"))
        for each in sources().values()
        if each.path.parts[0] == "frameworks"
    ),
]


@pytest.mark.parametrize("wanted", WANTED)
def test_it_is_two_clicks_from_home(wanted: str, pages: dict[str, Html]) -> None:
    def clicked(name: str) -> set[str]:
        there = (resolved(name, link) for link in pages[name].links)
        found = {f"{place}#{anchor}" if anchor else place for place, anchor in filter(None, there)}
        return {each for each in found if each.partition("#")[0] in pages}

    first = clicked("index.html")
    second = {each for name in first for each in clicked(name.partition("#")[0])}
    assert wanted in first | second


def run(driver: Chrome, script: str) -> Any:
    """What a script finds in the page."""
    found = command(driver, "Runtime.evaluate", {"expression": script, "returnByValue": True})
    return found["result"].get("value")


def test_each_page_loads_and_fits_a_phone(
    address: str, driver: Chrome, pages: dict[str, Html]
) -> None:
    looks_like(driver, 390, 844, dark=False)
    read_log(driver, "browser")
    wrong: list[str] = []
    for name in pages:
        driver.get(f"{address}/{name}")
        width = run(driver, "document.documentElement.scrollWidth")
        if width > 390:
            wrong.append(f"{name} is {width} pixels wide")
        wrong += [f"{name}: {entry['message']}" for entry in read_log(driver, "browser")]
    assert wrong == []


def test_the_search_finds_a_name(address: str, driver: Chrome) -> None:
    looks_like(driver, 1280, 900, dark=False)
    driver.get(f"{address}/search.html?q=acquire_replica")
    found = "[...document.querySelectorAll('#search-results li a')].map(a => a.href)"
    WebDriverWait(driver, 20).until(lambda driver: run(driver, found))
    links = run(driver, found)
    assert any("api/base.html" in link and "acquire_replica" in link for link in links), links


def test_it_is_light_and_dark_as_the_system_is(address: str, driver: Chrome) -> None:
    shades: list[int] = []
    for dark in (False, True):
        looks_like(driver, 1280, 900, dark=dark)
        driver.get(f"{address}/index.html")
        colour = run(driver, "getComputedStyle(document.body).backgroundColor")
        shades.append(sum(int(part) for part in re.findall(r"\d+", colour)[:3]))
    light, dark_one = shades
    assert light > 600
    assert dark_one < 200
