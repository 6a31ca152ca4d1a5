"""The password file: text -> the password for one host, as libpq finds it.

Lines are ``host:port:dbname:user:password``. Each of the first four is ``*`` or what it must equal,
a backslash before any character of that, as before a ``:`` or a backslash in the password. The
first line that fits counts.
"""

from collections.abc import Collection, Iterator


class PasswordFile:
    """The passwords for the hosts of one DSN. Each line is read once, not once for each host."""

    def __init__(self, text: str, hosts: Collection[str], dbname: str, user: str) -> None:
        """``hosts`` are those to be looked for, as `resolve` does it."""
        self._hosts = frozenset(hosts)
        self._lengths = frozenset(map(len, self._hosts))
        self._longest = max(self._lengths, default=0)
        self._found: dict[tuple[str, str], tuple[int, str]] = {}
        """By what stands for host and port: the first line that fits, and its password."""
        for number, line in enumerate(text.split("\n")):
            if line.startswith("#"):
                continue
            for host, behind_host in self._read_host(line.rstrip("\r\n")):
                port, rest = _read_port(behind_host)
                for value in (dbname, user):
                    rest = None if rest is None else _behind(rest, value)
                if rest is not None and (host, port) not in self._found:
                    self._found[host, port] = number, _password(rest)

    def find(self, host: str, port: int) -> str | None:
        """The first line's that fits, or None."""
        pairs = [(one, other) for one in (host, _ANY) for other in (str(port), _ANY)]
        fitting = [self._found[pair] for pair in pairs if pair in self._found]
        return min(fitting)[1] if fitting else None

    def _read_host(self, line: str) -> Iterator[tuple[str, str]]:
        """Each host that the line is for, and what follows in it."""
        if line.startswith("*:"):
            yield _ANY, line[2:]
            return
        name: list[str] = []
        position = 0
        while position < len(line) and len(name) <= self._longest:
            # Not the next colon alone: one that the name has, too, needs no backslash.
            if line[position] == ":" and len(name) in self._lengths:
                host = "".join(name)
                if host in self._hosts:
                    yield host, line[position + 1 :]
            position += line[position] == "\\"
            name.append(line[position : position + 1])
            position += 1


_ANY = ""
"""In the place of a host or a port: neither is ever empty."""


def _read_port(line: str) -> tuple[str, str | None]:
    """The port that the line is for, and what follows in it."""
    field = line.partition(":")[0]
    port = _ANY if field == "*" else field.replace("\\", "")
    return port, _behind(line, port or "*")


def _behind(line: str, value: str) -> str | None:
    """What follows the field, where it fits."""
    if line.startswith("*:"):
        return line[2:]
    position = 0
    # Not up to the next colon: one that the value has, too, needs no backslash.
    for character in value:
        position += line.startswith("\\", position)
        if not line.startswith(character, position):
            return None
        position += 1
    return line[position + 1 :] if line.startswith(":", position) else None


def _password(text: str) -> str:
    """The text before the next ``:``, without its backslashes."""
    value: list[str] = []
    position = 0
    while position < len(text) and text[position] != ":":
        if text[position] == "\\" and position + 1 < len(text):
            position += 1
        value.append(text[position])
        position += 1
    return "".join(value)
