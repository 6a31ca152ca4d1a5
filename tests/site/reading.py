"""What a page links to, and what can be linked to in it."""

import posixpath
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path


@dataclass(frozen=True)
class Html:
    links: set[str] = field(default_factory=set[str])
    anchors: set[str] = field(default_factory=set[str])
    pictures: dict[str, str] = field(default_factory=dict[str, str])
    """Where they are from, and what is said instead of them."""


def read(path: Path) -> Html:
    reader = _Reader()
    reader.feed(path.read_text())
    return reader.found


def resolved(page: str, link: str) -> tuple[str, str] | None:
    """The page and the anchor that a link of a page leads to; None: out of the site."""
    if re.match(r"[a-z]+:|//", link):
        return None
    place, _, anchor = link.partition("#")
    place = posixpath.normpath(posixpath.join(posixpath.dirname(page), place)) if place else page
    return place, anchor


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = Html()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.found.anchors.add(given["id"] or "")
        if tag in {"a", "link"} and given.get("href"):
            self.found.links.add(given["href"] or "")
        elif tag in {"img", "script"} and given.get("src"):
            self.found.links.add(given["src"] or "")
            if tag == "img":
                self.found.pictures[given["src"] or ""] = given.get("alt") or ""
