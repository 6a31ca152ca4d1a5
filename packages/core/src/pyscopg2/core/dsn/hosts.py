"""The values of a DSN -> one `Target` per host."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pyscopg2.core.dsn.grammar import SPACES
from pyscopg2.core.dsn.keywords import DEFAULT_PORT
from pyscopg2.core.dsn.target import Params, Target
from pyscopg2.core.errors import DsnError


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
    digits = text.strip(SPACES).removeprefix("+")
    significant = digits.lstrip("0")
    if digits.isascii() and digits.isdigit() and len(significant) <= 5:
        port = int(significant or "0")
        if 1 <= port <= 65535:
            return port
    raise DsnError(
        f"{where}: not an integer from 1 to 65535 (in the password of a URI, '@' is written %40,"
        " and '/' %2F)"
    )


def _has_stray_at(hosts: Iterable[str], user: str, dbname: str) -> bool:
    """Whether an ``@`` that should have ended the credentials is left over.

    Not in ``user@server``, as some clouds have it, nor in the name of a socket.
    """
    return (
        any("@" in host[host.startswith("@") :] and not host.startswith("/") for host in hosts)
        or "@" in dbname
        or ("@" in user and "/" in user)
    )
