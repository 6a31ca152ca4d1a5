"""The password file: text -> the password for one host, as libpq finds it.

Lines are ``host:port:dbname:user:password``. Each of the first four is ``*`` or what it must equal,
a backslash before any character of that, as before a ``:`` or a backslash in the password. The
first line that fits counts.
"""


def find_password(text: str, host: str, port: int, dbname: str, user: str) -> str | None:
    """The first line's that fits, or None. ``host`` is as `resolve` looks it up."""
    for line in text.split("\n"):
        if line.startswith("#"):
            continue
        rest: str | None = line.rstrip("\r\n")
        for value in (host, str(port), dbname, user):
            rest = None if rest is None else _behind(rest, value)
        if rest is not None:
            return _password(rest)
    return None


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
