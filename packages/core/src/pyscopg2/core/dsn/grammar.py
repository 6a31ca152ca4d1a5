"""Text -> values by libpq's keywords, read as libpq reads it.

The rules are those of `PQconninfoParse` and of the host lists in `PQconnectStart` (the libpq
manual, "Connection Strings", 34.1.1 in PostgreSQL 16), taken from libpq 18. Only the text counts:
no environment, no service or password file, and no default; `resolution` adds those.

Errors name the place and the reason and never quote the text: where it is malformed, its password
may stand anywhere in it.
"""

import re
from collections.abc import Container, Iterable, Iterator
from difflib import get_close_matches

from pyscopg2.core.dsn.keywords import KEYWORDS, SECRETS
from pyscopg2.core.errors import DsnError

_URI_SCHEMES = ("postgresql://", "postgres://")
SPACES = " \t\n\v\f\r"
"""C's isspace(); str.isspace() knows many more."""
_EXAMPLES = (
    "a DSN is postgresql://user@host1,host2/dbname, or host=host1,host2 user=user dbname=dbname"
)
_NAME = re.compile(r"[A-Za-z_]{1,40}")
"""What is shown of an unknown parameter."""
_HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")

_Setting = tuple[str, str, str]
"""Where it stands (for errors), name, value."""


def read_values(
    text: str, *, extra_params: bool | Container[str] = False, schemes: Iterable[str] = ()
) -> dict[str, str]:
    """The values in a DSN by libpq's keywords, lists of hosts as they stand; for
    `hosts.make_targets`.

    Errors as `parse_dsn`, but for those of host lists.
    """
    # Callers without a type checker pass None (an unset variable), bytes, or SQLAlchemy's URL.
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _not_text(text)
    if "\0" in text:
        raise DsnError(f"position {text.index(chr(0)) + 1}: NUL character")
    if not _is_encodable(text):
        raise DsnError("the text contains a lone surrogate, which has no bytes")
    if text.startswith((*schemes, *_URI_SCHEMES)):
        return _collect(_read_uri(text), extra_params, is_misread=is_misread(text))
    if "://" in text.partition("=")[0]:
        known = ", ".join((*schemes, " or ".join(_URI_SCHEMES)))
        is_sqlalchemys = text.startswith(("postgresql+", "postgres+")) and not schemes
        hint = " (SQLAlchemy's, which names a driver, is for pyscopg2.sqlalchemy)"
        raise DsnError(f"the scheme of a URI is {known}, in lower case{hint * is_sqlalchemys}")
    if _is_bare(text):
        raise DsnError(f"no scheme, and no name=value: {_EXAMPLES}")
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


def _is_bare(text: str) -> bool:
    """Whether it is a URI but for its beginning: libpq takes it for names and values, of which
    none is like that."""
    name, equals, _ = text.partition("=")
    return bool(text.strip(SPACES)) and (not equals or _find_any(name, "@:/?,", 0) < len(name))


def _not_text(given: object) -> TypeError:
    hint = ""
    if given is None:
        hint = " (is an environment variable not set?)"
    elif hasattr(given, "render_as_string"):
        hint = ": give its render_as_string(hide_password=False)"
    return TypeError(f"a DSN is a str, not {type(given).__name__}{hint}")


# Reading: each form of text to a flow of settings.


def _read_keywords(text: str) -> Iterator[_Setting]:
    """``name = value name='value'``; a backslash escapes one character, quoted or not."""
    position = _skip_spaces(text, 0)
    while position < len(text):
        start = position
        position = _find_any(text, "=" + SPACES, start)
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
            value, position = _read_value(text, position, SPACES)
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
    while position < len(text) and text[position] in SPACES:
        position += 1
    return position


def _is_encodable(text: str) -> bool:
    # The error carries the whole text, password included: it must not become a context of ours.
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _collect(
    settings: Iterable[_Setting], extra_params: bool | Container[str], *, is_misread: bool = False
) -> dict[str, str]:
    """The last value of each parameter. ``is_misread``: of the text, see there."""
    values: dict[str, str] = {}
    # What follows a secret may be the rest of it, as `b` is in `password=a b=c` or in
    # `?password=a&b=c`.
    may_be_secret = is_misread
    for where, name, value in settings:
        if name == "requiressl":
            name, value = "sslmode", "require" if value.startswith("1") else "prefer"
        else:
            require_known(name, where, extra_params, is_shown=not may_be_secret)
        may_be_secret |= name in SECRETS and where != name
        values[name] = value
    return values


def require_known(
    name: str, where: str, extra_params: bool | Container[str], *, is_shown: bool = False
) -> None:
    """`DsnError`: neither libpq knows the parameter, nor is it allowed as an extra one.

    ``is_shown``: the name is no secret, nor a piece of one.
    """
    if name not in KEYWORDS and not _is_allowed(name, extra_params):
        shown = f" {name!r}" if is_shown and _NAME.fullmatch(name) else ""
        raise DsnError(f"{where}: unknown parameter{shown}{_suggestion(name)}")


def _is_allowed(name: str, extra_params: bool | Container[str]) -> bool:
    if isinstance(extra_params, bool):
        return extra_params and name != ""
    return name in extra_params


def _suggestion(name: str) -> str:
    # No keyword is this long, and the search takes its time over a long name.
    similar = get_close_matches(name, KEYWORDS, n=1) if len(name) < 40 else ()
    return "".join(f"; did you mean {keyword!r}?" for keyword in similar)
