"""The service file: text -> the values of one service, as libpq reads them.

``[name]`` begins a service, ``parameter=value`` lines follow, with no spaces around the ``=``; a
line that begins with ``#`` is a comment. Of a parameter that is there twice the first counts.
"""

from collections.abc import Container

from pyscopg2.core.dsn.grammar import require_known
from pyscopg2.core.errors import DsnError

_SPACES = " \t\n\v\f\r"
_LONGEST = 1022
"""Bytes in a line, its end included."""


def read_service(
    text: str, service: str, where: str, extra_params: bool | Container[str] = False
) -> dict[str, tuple[str, str]] | None:
    """Each parameter's value, and the place where it stands; None where no such service is.

    ``where`` names the file in places. What comes behind the service is not looked at.
    `DsnError`: libpq would refuse the file, or ask an LDAP server. Never shows a value.
    """
    found: dict[str, tuple[str, str]] | None = None
    *whole, last = text.split("\n")
    for number, raw in enumerate([*(f"{line}\n" for line in whole), last], start=1):
        place = f"{where}, line {number}"
        if len(raw.encode("utf-8", "surrogateescape")) > _LONGEST:
            raise DsnError(f"{place}: longer than {_LONGEST} bytes")
        line = raw.strip(_SPACES)
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if found is not None:
                break
            if line.startswith(f"[{service}]"):
                found = {}
        elif found is not None:
            name, equals, value = line.partition("=")
            if line.startswith("ldap"):
                raise DsnError(f"{place}: a service is not looked up by LDAP here")
            if not equals:
                raise DsnError(f"{place}: a line is parameter=value")
            if name == "service":
                raise DsnError(f"{place}: a service can't name another one")
            require_known(name, place, extra_params)
            found.setdefault(name, (value, place))
    return found
