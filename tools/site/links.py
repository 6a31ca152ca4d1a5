"""Links between files of the repository, made links between pages of the site."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from .pages import Page

REPOSITORY = "https://github.com/pyscopg2/pyscopg2"

_FENCED = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)(\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)")
_PICTURES = (".png", ".svg")


class BrokenLinkError(ValueError):
    """Names the file and the link."""


class Links:
    """Rewrites the texts of pages."""

    def __init__(
        self,
        root: Path,
        pages: Mapping[PurePosixPath, Page],
        api: Mapping[PurePosixPath, PurePosixPath],
    ) -> None:
        self._root = root
        self._pages = pages
        self._api = api
        self.pictures: set[PurePosixPath] = set()
        """Those that were met, by their place in the repository and on the site."""

    def rewritten(self, page: Page, text: str) -> str:
        """The text with its links as they are on the site; what stands in code stays.

        `BrokenLinkError`: one that leads to no file.
        """
        parts = _FENCED.split(text)
        parts[::2] = [_LINK.sub(self._in(page), part) for part in parts[::2]]
        return "".join(parts)

    def _in(self, page: Page) -> Callable[[re.Match[str]], str]:
        def replaced(link: re.Match[str]) -> str:
            picture, label, target = link.groups()
            return f"{picture}{label}({self._target(page, target)})"

        return replaced

    def _target(self, page: Page, target: str) -> str:
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            return target
        name, mark, anchor = target.partition("#")
        place = PurePosixPath(os.path.normpath(page.source.parent / name))
        if place / "README.md" in self._pages:
            place = place / "README.md"
        if not (self._root / place).exists():
            raise BrokenLinkError(f"{page.source}: {target}")
        if place in self._pages:
            return _from(page, self._pages[place].path) + mark + anchor
        if place in self._api:
            return _from(page, self._api[place])
        if place.suffix in _PICTURES:
            self.pictures.add(place)
            return _from(page, place)
        kind = "tree" if (self._root / place).is_dir() else "blob"
        return f"{REPOSITORY}/{kind}/main/{place}{mark}{anchor}"


def _from(page: Page, there: PurePosixPath) -> str:
    return PurePosixPath(os.path.relpath(there, page.path.parent)).as_posix()
