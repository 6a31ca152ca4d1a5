"""What there is beside a DSN's text: the environment, the user's account, files."""

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

if sys.platform != "win32":
    import pwd

_SOCKET_DIRECTORIES = ("/var/run/postgresql", "/run/postgresql", "/tmp")  # noqa: S108 - nothing is put there
"""One of them is compiled into libpq: Debian's and Red Hat's, and PostgreSQL's own."""


class Files(Protocol):
    """The files, as far as they are looked at. `OSError`: there is no such file, or no access."""

    def mode(self, path: str, /) -> int:
        """Its type and permissions, as ``st_mode`` has them."""
        ...

    def read(self, path: str, /) -> str:
        """Its text; bytes that are not UTF-8 become surrogates."""
        ...


class LocalFiles:
    """Those of the machine. Blocks."""

    def mode(self, path: str, /) -> int:
        return Path(path).stat().st_mode

    def read(self, path: str, /) -> str:
        return Path(path).read_bytes().decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is beside a DSN's text."""

    environ: Mapping[str, str] = field(repr=False)
    home: str | None
    """The home directory; None: unknown."""
    user: str | None
    """The operating system's name for the account that runs this; None: it has none."""
    default_host: str
    """The host of a DSN without one: a socket's directory, or ``localhost``."""
    files: Files

    @classmethod
    def here(cls) -> Self:
        """Those of this process, as they are now."""
        environ = dict(os.environ)
        files = LocalFiles()
        name, home = _account()
        return cls(environ, environ.get("HOME") or home, name, _default_host(files), files)


def _account() -> tuple[str | None, str | None]:
    """The account's name and home directory, as the user database has them."""
    if sys.platform == "win32":
        return os.environ.get("USERNAME"), None
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        return None, None
    return entry.pw_name, entry.pw_dir


def _default_host(files: Files) -> str:
    if sys.platform == "win32":
        return "localhost"
    for directory in _SOCKET_DIRECTORIES:
        try:
            if stat.S_ISDIR(files.mode(directory)):
                return directory
        except OSError:
            pass
    return _SOCKET_DIRECTORIES[-1]
