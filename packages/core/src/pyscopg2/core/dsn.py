"""Text -> one `Target` per host, read as libpq reads it.

The rules are those of `PQconninfoParse` and of the host lists in `PQconnectStart` (the libpq
manual, "Connection Strings", 34.1.1 in PostgreSQL 16), taken from libpq 18. Only the text counts:
no environment, no service or password file, and no default but port 5432; `resolve` adds those.

Where a DSN is malformed, its password may stand anywhere: before a stray ``@``, behind an unquoted
space, in place of a port. So errors name the place and the reason and never quote the text, and a
target shows of a value only what a plain one has.
"""

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from pyscopg2.core.errors import DsnError

DEFAULT_PORT = 5432

# Those of libpq 18.
KEYWORDS = frozenset(
    """
    application_name channel_binding client_encoding connect_timeout dbname
    fallback_application_name gssdelegation gssencmode gsslib host hostaddr keepalives
    keepalives_count keepalives_idle keepalives_interval krbsrvname load_balance_hosts
    max_protocol_version min_protocol_version oauth_client_id oauth_client_secret oauth_issuer
    oauth_scope options passfile password port replication require_auth requirepeer
    scram_client_key scram_server_key service ssl_max_protocol_version ssl_min_protocol_version
    sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey sslkeylogfile sslmode sslnegotiation
    sslpassword sslrootcert sslsni target_session_attrs tcp_user_timeout user
    """.split()  # noqa: SIM905 - a list literal would take fifty lines
)
# `options` can carry a token for row security: ``-c app.token=...``.
_SECRETS = frozenset(
    {
        "oauth_client_secret",
        "options",
        "password",
        "scram_client_key",
        "scram_server_key",
        "sslpassword",
    }
)
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

_URI_SCHEMES = ("postgresql://", "postgres://")
_SPACES = " \t\n\v\f\r"  # C's isspace(); str.isspace() knows many more
_HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

_Setting = tuple[str, str, str]  # where it stands (for errors), name, value


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
    def secrets(self) -> frozenset[str]:
        """What is not shown of it, in whole and in words: for those who pass on what others say."""
        found: set[str] = set()
        for name, number_or_text in self.to_kwargs().items():
            value = str(number_or_text)
            if name not in KEYWORDS:
                found |= {name, value}
            elif self.misread or (name != "port" and _shown(name, value) != value):
                found.add(value)
                if name not in _SECRETS or name == "options":
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


def parse_dsn(
    text: str, *, extra_params: bool | Container[str] = False, schemes: Iterable[str] = ()
) -> tuple[Target, ...]:
    """Read a libpq URI or keyword/value string; at least one target, in order, no duplicates.

    ``schemes`` are what a URI may begin with beside libpq's ``postgresql://`` and ``postgres://``.
    ``extra_params`` allows parameters that libpq does not know: all of them, or those contained.
    Parameters are not interpreted, `target_session_attrs` and `load_balance_hosts` included; only
    ``ssl=true`` (in a URI) and ``requiressl`` become ``sslmode``, as in libpq.

    `TypeError`: not a `str`. `DsnError`: libpq would refuse the text, now or when it came to
    connect to that host. Its message names the place, positions counted from 1, and never quotes
    the text.
    """
    values = read_values(text, extra_params=extra_params, schemes=schemes)
    return make_targets(values, misread=is_misread(text))


def read_values(
    text: str, *, extra_params: bool | Container[str] = False, schemes: Iterable[str] = ()
) -> dict[str, str]:
    """The values in a DSN by libpq's keywords, lists of hosts as they stand; for `make_targets`.

    Errors as `parse_dsn`, but for those of host lists.
    """
    # Callers without a type checker pass None (an unset variable) or bytes.
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a DSN is a str, not {type(text).__name__}")
    if "\0" in text:
        raise DsnError(f"position {text.index(chr(0)) + 1}: NUL character")
    if not _is_encodable(text):
        raise DsnError("the text contains a lone surrogate, which has no bytes")
    if text.startswith((*schemes, *_URI_SCHEMES)):
        return _collect(_read_uri(text), extra_params)
    if "://" in text.partition("=")[0]:
        known = ", ".join((*schemes, " or ".join(_URI_SCHEMES)))
        raise DsnError(f"the scheme of a URI is {known}, in lower case")
    return _collect(_read_keywords(text), extra_params)


def is_misread(text: str) -> bool:
    """Whether it is a URI with a password that probably ends later than libpq's rules have it.

    Those end it at the first ``@``, or have none where a ``/`` comes before that. If an ``@``
    follows, what was read as hosts, database and parameters may be the rest of the password.
    """
    before, scheme, rest = text.partition("://")
    last = rest.rfind("@")
    is_uri = scheme and "=" not in before
    return bool(is_uri and ":" in rest[: max(last, 0)] and last != _find_any(rest, "@/", 0))


# Reading: each form of text to a flow of settings.


def _read_keywords(text: str) -> Iterator[_Setting]:
    """``name = value name='value'``; a backslash escapes one character, quoted or not."""
    position = _skip_spaces(text, 0)
    while position < len(text):
        start = position
        position = _find_any(text, "=" + _SPACES, start)
        name = text[start:position]
        position = _skip_spaces(text, position)
        if not text.startswith("=", position):
            raise DsnError(
                f"position {start + 1}: a name without '='"
                " (a value with spaces stands in single quotes)"
            )
        position = _skip_spaces(text, position + 1)
        if text.startswith("'", position):
            value, position = _read_value(text, position + 1, "'")
            if position == len(text):
                raise DsnError(f"position {start + 1}: the quoted value does not end")
            position += 1
        else:
            value, position = _read_value(text, position, _SPACES)
        yield f"position {start + 1}", name, value
        position = _skip_spaces(text, position)


def _read_value(text: str, position: int, ends: str) -> tuple[str, int]:
    """The value without its backslashes, and the position of its end, one of ``ends`` or none."""
    value: list[str] = []
    while position < len(text) and text[position] not in ends:
        if text[position] == "\\":
            position += 1
        value.append(text[position : position + 1])  # nothing behind a final backslash
        position += 1
    return "".join(value), min(position, len(text))


def _read_uri(text: str) -> Iterator[_Setting]:
    """``scheme://[user[:password]@][host][:port][,...][/dbname][?name=value[&...]]``.

    Parts that are empty are not set; in the query an empty value is a value. The query comes last
    and so wins.
    """
    start = text.index("://") + 3
    # The first '@' ends the credentials, unless a '/' comes before it. '?' and '[' mean nothing
    # yet, so they may stand in a password as they are.
    end = _find_any(text, "@/", start)
    if text.startswith("@", end):
        user, _, password = text[start:end].partition(":")
        if user:
            yield "user", "user", _decoded(user, "user")
        if password:
            yield "password", "password", _decoded(password, "password")
        start = end + 1

    hosts, ports, end = _read_netlocs(text, start)
    # The lists are decoded as a whole, so an encoded comma separates hosts like any other.
    if hosts:
        yield "hosts", "host", _decoded(hosts, "hosts")
    if ports:
        yield "ports", "port", _decoded(ports, "ports")

    path, _, query = text[end:].partition("?")
    if dbname := path[1:]:
        yield "dbname", "dbname", _decoded(dbname, "dbname")
    yield from _read_query(query, len(text) - len(query))


def _read_netlocs(text: str, position: int) -> tuple[str, str, int]:
    """The hosts and the ports, each as a list with commas, and the position of their end."""
    hosts: list[str] = []
    ports: list[str] = []
    while True:
        start = position
        if text.startswith("[", start):
            end = text.find("]", start)
            if end == -1:
                raise DsnError(f"position {start + 1}: '[' without ']'")
            if end == start + 1:
                raise DsnError(f"position {start + 1}: an empty IPv6 address")
            hosts.append(text[start + 1 : end])
            position = end + 1
            if position < len(text) and text[position] not in ":/?,":
                raise DsnError(f"position {position + 1}: ':', ',', '/' or '?' must follow ']'")
        else:
            position = _find_any(text, ":/?,", start)
            hosts.append(text[start:position])
        start = position
        if text.startswith(":", start):
            position = _find_any(text, "/?,", start)
        ports.append(text[start + 1 : position])
        if not text.startswith(",", position):
            return ",".join(hosts), ",".join(ports), position
        position += 1


def _read_query(query: str, position: int) -> Iterator[_Setting]:
    """``name=value&name=value``; one ``&`` may follow the last."""
    for item in query.removesuffix("&").split("&") if query else ():
        where = f"position {position + 1}"
        if item.count("=") != 1:
            raise DsnError(f"{where}: a query parameter is name=value, with one '='")
        name, value = (_decoded(part, where) for part in item.split("="))
        if (name, value) == ("ssl", "true"):  # as JDBC has it
            name, value = "sslmode", "require"
        yield where, name, value
        position += len(item) + 1


def _decoded(text: str, where: str) -> str:
    """Without percent-encoding and the spaces around; ``+`` stays a plus."""
    text = text.strip(" ")
    if " " in text:
        raise DsnError(f"{where}: a space within a value of a URI is written %20")
    first, *rest = text.encode("utf-8", "surrogateescape").split(b"%")
    decoded = [first]
    for piece in rest:
        digits = piece[:2]
        if len(digits) < 2 or not _HEX_DIGITS.issuperset(digits):
            raise DsnError(f"{where}: '%' without two hexadecimal digits (a '%' is written %25)")
        if digits == b"00":
            raise DsnError(f"{where}: %00 is forbidden")
        decoded += (bytes((int(digits, 16),)), piece[2:])
    return b"".join(decoded).decode("utf-8", "surrogateescape")


def _find_any(text: str, characters: str, position: int) -> int:
    """The position of the first of these characters, or the end of the text."""
    # Not the least of several str.find(): each of those may run to the end, once per host.
    while position < len(text) and text[position] not in characters:
        position += 1
    return position


def _skip_spaces(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACES:
        position += 1
    return position


def _is_encodable(text: str) -> bool:
    # The error carries the whole text, password included: it must not become a context of ours.
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


# Meaning: settings to targets.


def _collect(settings: Iterable[_Setting], extra_params: bool | Container[str]) -> dict[str, str]:
    """The last value of each parameter."""
    values: dict[str, str] = {}
    for where, name, value in settings:
        if name == "requiressl":
            name, value = "sslmode", "require" if value.startswith("1") else "prefer"
        else:
            require_known(name, where, extra_params)
        values[name] = value
    return values


def require_known(name: str, where: str, extra_params: bool | Container[str]) -> None:
    """`DsnError`: neither libpq knows the parameter, nor is it allowed as an extra one."""
    if name not in KEYWORDS and not _is_allowed(name, extra_params):
        # The name is not quoted: it may be a piece of a password, as `b` is in `password=a b=c`
        # or in `?password=a&b=c`.
        raise DsnError(f"{where}: unknown parameter{_suggestion(name)}")


def _is_allowed(name: str, extra_params: bool | Container[str]) -> bool:
    if isinstance(extra_params, bool):
        return extra_params and name != ""
    return name in extra_params


def _suggestion(name: str) -> str:
    # No keyword is this long, and the search takes its time over a long name.
    similar = get_close_matches(name, KEYWORDS, n=1) if len(name) < 40 else ()
    return "".join(f"; did you mean {keyword!r}?" for keyword in similar)


def make_targets(
    values: Mapping[str, str],
    sources: Mapping[str, str] | None = None,
    *,
    misread: bool = False,
) -> tuple[Target, ...]:
    """One target per host from the values of `read_values`, or from others.

    ``sources`` has the names of places that values come from, where that is not the text: errors
    name them. ``misread``: `is_misread` of the text.

    `DsnError`: the lists of hosts and ports do not fit each other, or a bad port.
    """
    label = {name: f"{source}: " for name, source in (sources or {}).items()}
    hosts, hostaddrs, ports = (
        values[name].split(",") if values.get(name) else [] for name in ("host", "hostaddr", "port")
    )
    count = len(hostaddrs) or len(hosts) or 1
    if hosts and len(hosts) != count:
        raise DsnError(
            f"{label.get('host', '') or label.get('hostaddr', '')}host and hostaddr:"
            f" {len(hosts)} host names, {count} hostaddr values"
        )
    if len(ports) not in (0, 1, count):
        raise DsnError(
            f"{label.get('port', '')}port: {len(ports)} ports for {count} hosts"
            " (as many, or one for all)"
        )
    numbers = [
        _port(text, f"{label.get('port', '')}port {index}")
        for index, text in enumerate(ports or [""], start=1)
    ]
    places = zip(
        hosts or [""] * count,
        hostaddrs or [""] * count,
        numbers if len(numbers) == count else numbers * count,
        strict=True,
    )
    user, password, dbname = (values.get(name) for name in ("user", "password", "dbname"))
    own = ("host", "hostaddr", "port", "user", "password", "dbname")
    misread = misread or _has_stray_at((*hosts, *hostaddrs), user or "", dbname or "")
    others = {name: value for name, value in values.items() if name not in own}
    params = Params(others, misread=misread)
    return distinct(
        Target(
            host or None,
            port,
            user,
            password,
            dbname,
            params,
            hostaddr or None,
            misread=misread,
        )
        for host, hostaddr, port in dict.fromkeys(places)
    )


def distinct(targets: Iterable[Target]) -> tuple[Target, ...]:
    """The first target of each host and port, with numbers where they are shown alike.

    A host 10.0.0.1 and a hostaddr 10.0.0.1 are one.
    """
    unique: dict[tuple[str | None, str | None, int], Target] = {}
    for target in targets:
        host, hostaddr = target.host or None, target.hostaddr or None
        unique.setdefault((host or hostaddr, hostaddr or host, target.port), target)
    alike: Counter[str] = Counter()
    numbered: list[Target] = []
    for target in unique.values():
        first = replace(target, number=1) if target.number != 1 else target
        alike[first.address] += 1
        number = alike[first.address]
        numbered.append(first if number == 1 else replace(first, number=number))
    return tuple(numbered)


def _port(text: str, where: str) -> int:
    """As C's `strtol`: spaces around, a plus and leading zeros are allowed; empty is 5432."""
    if not text:
        return DEFAULT_PORT
    digits = text.strip(_SPACES).removeprefix("+")
    significant = digits.lstrip("0")
    if digits.isascii() and digits.isdigit() and len(significant) <= 5:
        port = int(significant or "0")
        if 1 <= port <= 65535:
            return port
    raise DsnError(
        f"{where}: not an integer from 1 to 65535 (in the password of a URI, '/' is written %2F)"
    )


# Showing and writing.


def _address(host: str | None, hostaddr: str | None, port: int) -> str:
    address = _shown("hostaddr", hostaddr or "")
    name = _shown("host", host) if host else address or "(default)"
    name = f"[{name}]" if _is_ipv6(name) else name
    return f"{name}({address}):{port}" if host and hostaddr else f"{name}:{port}"


def _is_ipv6(host: str) -> bool:
    return ":" in host and not host.startswith(("/", "@"))


def _shown(name: str, value: str) -> str:
    """What may be seen of a parameter's value."""
    if name in _SECRETS:
        return value and _HIDDEN
    match = _PLAIN.get(name, _PLAIN_VALUE).match(value)
    end = match.end() if match else 0
    return value if end == len(value) else value[:end] + _HIDDEN


def _has_stray_at(hosts: Iterable[str], user: str, dbname: str) -> bool:
    """Whether an ``@`` that should have ended the credentials is left over.

    Not in ``user@server``, as some clouds have it, nor in the name of a socket.
    """
    return (
        any("@" in host[host.startswith("@") :] and not host.startswith("/") for host in hosts)
        or "@" in dbname
        or ("@" in user and "/" in user)
    )


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _encoded(text: str) -> str:
    return "".join(
        character
        if character in _UNRESERVED
        else "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
        for character in text
    )
