"""One host of a DSN, with what it takes to connect there.

Where a DSN is malformed, its password may stand anywhere: before a stray ``@``, behind an unquoted
space, in place of a port. So a target shows of a value only what a plain one has.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pyscopg2.core.dsn.keywords import KEYWORDS, SECRETS

_HIDDEN = "***"

# What is shown of a value: as far as it looks like one. A password that was misread follows a
# character that plain values do not have: ``db1;password=...``, ``app:...``, ``pin-value=...``.
_IPV6 = r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[\w.-]*)?"
_SOCKET = r"/[\w./:@-]*|@[\w./:-]*"
_PLAIN = {
    "host": re.compile(rf"{_SOCKET}|{_IPV6}|[\w.-]*"),
    "hostaddr": re.compile(rf"{_IPV6}|[0-9.]*"),
    "user": re.compile(r"[\w.@-]*"),
}
_PLAIN_VALUE = re.compile(r"[\w./~ -]*")
_BETWEEN_WORDS = re.compile(r"[\s=;&,:@/?#]+")
_SETTING_NAME = r"[A-Za-z_][A-Za-z0-9_$]*(?:\.[A-Za-z_][A-Za-z0-9_$]*)*"
_NAME = re.compile(_SETTING_NAME)
_OPTION_NAME = re.compile(rf"(?:-c\s*|--){_SETTING_NAME}(?=\s*=)")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Params(Mapping[str, str]):
    """Parameters in the order of the text: immutable, hashable, and discreet in their `repr`.

    The `repr` hides secrets. Of parameters that libpq does not know it shows not even the name:
    in ``password=se cret=x`` that is a piece of the password. Those of a DSN that was ``misread``
    it hides all.
    """

    __slots__ = ("_misread", "_values")

    def __init__(
        self, values: Mapping[str, str] | Iterable[tuple[str, str]] = (), *, misread: bool = False
    ) -> None:
        self._values = dict(values)
        self._misread = misread

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        if self._misread and self._values:
            return f"{{{_HIDDEN}}}"
        known = [name for name in self._values if name in KEYWORDS]
        shown = [f"{name!r}: {_shown(name, self[name])!r}" for name in known]
        if others := len(self._values) - len(known):
            shown.append(f"and {others} more")
        return "{" + ", ".join(shown) + "}"


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """One host of a DSN, with what it takes to connect there. Never shows a password.

    A value that the text does not give is None. An empty one is kept, since it means something
    else to libpq (``user=''`` rules out ``PGUSER``), but for ``host`` and ``hostaddr``, where both
    mean the default. Bytes that are not UTF-8 are surrogates, as in `os.environ`.
    """

    host: str | None
    port: int
    user: str | None = None
    password: str | None = None
    dbname: str | None = None
    params: Mapping[str, str] = field(default_factory=Params)
    hostaddr: str | None = None
    misread: bool = field(default=False, kw_only=True, compare=False)
    """Whether a piece of the password may stand in the place of any other value: none is shown."""
    number: int = field(default=1, kw_only=True, compare=False)
    """Which it is of those targets of its DSN that are shown alike."""

    def __post_init__(self) -> None:
        if not isinstance(self.params, Params):
            object.__setattr__(self, "params", Params(self.params, misread=self.misread))

    def __repr__(self) -> str:
        if self.misread:
            return f"Target({_HIDDEN})"
        values = {
            "host": self.host or None,
            "hostaddr": self.hostaddr or None,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.dbname,
        }
        said = [
            f"{name}={value if name == 'port' else _shown(name, str(value))!r}"
            for name, value in values.items()
            if value is not None
        ]
        if self.params:
            said.append(f"params={self.params!r}")
        return f"Target({', '.join(said)})"

    @property
    def address(self) -> str:
        """``host:port`` for humans, and the key of the host: no two targets of a DSN share it.

        ``[::1]:5432``, ``/run/postgresql:5432``, ``10.0.0.1:5432`` for a ``hostaddr`` alone,
        ``db(10.0.0.1):5432`` for both: hosts may differ in their ``hostaddr`` only. Where the text
        gives neither, the driver chooses (a socket, localhost, ``PGHOST``): ``(default):5432``.
        What is no plain name is hidden, and those that come out alike then are told apart by a
        number: ``db***:5432``, ``db***:5432 #2``.
        """
        address = _HIDDEN if self.misread else _address(self.host, self.hostaddr, self.port)
        return address if self.number == 1 else f"{address} #{self.number}"

    @property
    def database(self) -> str:
        """The database's name, for humans: what is no plain name is hidden. Empty where the text
        gives none."""
        return _HIDDEN if self.misread else _shown("dbname", self.dbname or "")

    @property
    def secrets(self) -> frozenset[str]:
        """What is not shown of it, in whole and in words: for messages that quote what others say.

        Not the names of settings: a server that refuses a misspelt one has to name it.
        """
        found: set[str] = set()
        for name, number_or_text in self.to_kwargs().items():
            value = str(number_or_text)
            if name not in KEYWORDS:
                found.add(value)
                if self.misread or not _NAME.fullmatch(name):
                    found.add(name)
            elif self.misread or (name != "port" and _shown(name, value) != value):
                found.add(value)
                if name == "options" and not self.misread:
                    found.update(_BETWEEN_WORDS.split(_OPTION_NAME.sub(" ", value)))
                elif name not in SECRETS or name == "options":
                    found.update(_BETWEEN_WORDS.split(value))
        return frozenset(found - {""})

    def to_kwargs(self) -> dict[str, str | int]:
        """Libpq's keywords with what is set, the password in clear. The port is always set."""
        fields = {
            "host": self.host,
            "hostaddr": self.hostaddr,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.dbname,
        }
        return {name: value for name, value in fields.items() if value is not None} | dict(
            self.params
        )

    def to_conninfo(self) -> str:
        """The keyword/value form, the password in clear. `parse_dsn` and libpq read it back."""
        return " ".join(f"{name}={_quoted(str(value))}" for name, value in self.to_kwargs().items())

    def to_uri(self) -> str:
        """The URI form, the password in clear. `parse_dsn` and libpq read it back.

        What the URI's own places cannot carry (an empty user, password or database name, a
        ``hostaddr``) becomes a query parameter. One thing has no URI: an extra parameter ``ssl``
        that is ``true``, which libpq turns into ``sslmode=require``.
        """
        host, user, password, dbname = (
            _encoded(value or "") for value in (self.host, self.user, self.password, self.dbname)
        )
        if _is_ipv6(self.host or ""):
            host = f"[{host.replace('%3A', ':')}]"
        userinfo = f"{user}:{password}@" if password else f"{user}@" if user else ""
        query = "&".join(
            f"{_encoded(name)}={_encoded(str(value))}"
            for name, value in self.to_kwargs().items()
            if name not in ("host", "port")
            and not (value and name in ("user", "password", "dbname"))
        )
        return f"postgresql://{userinfo}{host}:{self.port}/{dbname}{'?' if query else ''}{query}"


def _address(host: str | None, hostaddr: str | None, port: int) -> str:
    address = _shown("hostaddr", hostaddr or "")
    name = _shown("host", host) if host else address or "(default)"
    name = f"[{name}]" if _is_ipv6(name) else name
    return f"{name}({address}):{port}" if host and hostaddr else f"{name}:{port}"


def _is_ipv6(host: str) -> bool:
    return ":" in host and not host.startswith(("/", "@"))


def _shown(name: str, value: str) -> str:
    """What may be seen of a parameter's value."""
    if name in SECRETS:
        return value and _HIDDEN
    match = _PLAIN.get(name, _PLAIN_VALUE).match(value)
    end = match.end() if match else 0
    return value if end == len(value) else value[:end] + _HIDDEN


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _encoded(text: str) -> str:
    return "".join(
        character
        if character in _UNRESERVED
        else "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
        for character in text
    )
