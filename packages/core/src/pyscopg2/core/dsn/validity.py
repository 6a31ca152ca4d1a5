"""Which values libpq refuses before it connects: every rule about that stands here.

What only the server, the files of TLS or the network can tell is left to the driver.
"""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

from pyscopg2.core.dsn.target import Target
from pyscopg2.core.errors import DsnError

Place = Callable[[str], str]
"""What a parameter is called in messages: its name, and where its value comes from."""

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
    "max_protocol_version": ("3.0", "3.2", "latest"),
    "min_protocol_version": ("3.0", "3.2", "latest"),
    "sslcertmode": ("disable", "allow", "require"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": (
        "any",
        "read-write",
        "read-only",
        "primary",
        "standby",
        "prefer-standby",
    ),
}

_TLS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
"""In any case; empty means the TLS library's own."""

_METHODS = ("password", "md5", "gss", "sspi", "scram-sha-256", "oauth", "none")

_SCRAM_KEY = re.compile(r"[A-Za-z0-9+/]{43}=")
"""32 bytes in base64."""

_KEEPALIVES = ("keepalives_count", "keepalives_idle", "keepalives_interval")
_LARGEST = 2**31 - 1

_SPACES = " \t\n\v\f\r"


def check_values(values: Mapping[str, str], place: Place) -> None:
    """`DsnError`: libpq would refuse them, whatever the host. Shows no value."""
    for name, choices in _CHOICES.items():
        if values.get(name, choices[0]) not in choices:
            raise DsnError(f"{place(name)}: must be one of {', '.join(choices)}")
    if not _is_number(values.get("connect_timeout", "0")):
        raise DsnError(f"{place('connect_timeout')}: not a whole number")
    for name in ("scram_client_key", "scram_server_key"):
        if name in values and not _SCRAM_KEY.fullmatch(values[name]):
            raise DsnError(f"{place(name)}: not a key of 32 bytes in base64")
    _check_methods(values.get("require_auth", ""), place)
    _check_protocols(values, place)
    _check_tls(values, place)


def check_target(target: Target, place: Place) -> None:
    """`DsnError`: libpq would refuse the values when it came to connect to that host."""
    params = target.params
    if not target.hostaddr and (target.host or "").startswith(("/", "@")):
        if params.get("gssencmode") == "require":
            raise DsnError(f"{place('gssencmode')}: a socket has no encryption by GSSAPI")
        return
    if not target.hostaddr and "@" in (target.host or ""):
        raise DsnError(
            f"{place('host')}: no host's name has an '@' (in the password of a URI, '@' is written"
            " %40, and '/' %2F)"
        )
    names = ["keepalives", "tcp_user_timeout"]
    if not (_is_number(given := params.get("keepalives", "1")) and int(given) == 0):
        names += _KEEPALIVES
    for name in names:
        if not _is_number(params.get(name, "0")):
            raise DsnError(f"{place(name)}: not a whole number")


def _check_methods(text: str, place: Place) -> None:
    methods = text.split(",") if text else []
    unsigned = [method.removeprefix("!") for method in methods]
    if not {*unsigned} <= {*_METHODS}:
        raise DsnError(
            f"{place('require_auth')}: a list with commas of {', '.join(_METHODS)}, or of what it"
            " must not be, each with a '!'"
        )
    if len({*methods}) < len(methods):
        raise DsnError(f"{place('require_auth')}: a method is there twice")
    if len({method.startswith("!") for method in methods}) > 1:
        raise DsnError(f"{place('require_auth')}: either all methods have a '!', or none")


def _check_protocols(values: Mapping[str, str], place: Place) -> None:
    least, most = values.get("min_protocol_version"), values.get("max_protocol_version")
    if most == "3.0" and least not in (None, "3.0"):
        raise DsnError(f"{place('min_protocol_version')}: above max_protocol_version")


def _check_tls(values: Mapping[str, str], place: Place) -> None:
    known = {version.lower(): number for number, version in enumerate(_TLS)}
    limits = {
        "ssl_min_protocol_version": values.get("ssl_min_protocol_version", "TLSv1.2"),
        "ssl_max_protocol_version": values.get("ssl_max_protocol_version", ""),
    }
    for name, version in limits.items():
        if version and version.lower() not in known:
            raise DsnError(f"{place(name)}: must be one of {', '.join(_TLS)}")
    given = [known[version.lower()] for version in limits.values() if version]
    if any(most < least for least, most in pairwise(given)):
        raise DsnError(
            f"{place('ssl_max_protocol_version')}: below ssl_min_protocol_version, which is TLSv1.2"
            " where it is not given"
        )
    sslmode = values.get("sslmode", "prefer")
    if values.get("sslrootcert") == "system" and sslmode != "verify-full":
        raise DsnError(f"{place('sslmode')}: sslrootcert=system needs verify-full")
    encrypted = ("require", "verify-ca", "verify-full")
    if values.get("sslnegotiation") == "direct" and sslmode not in encrypted:
        raise DsnError(
            f"{place('sslmode')}: sslnegotiation=direct needs require, verify-ca or verify-full"
        )


def _is_number(text: str) -> bool:
    """As C's `strtol`: spaces around, a sign."""
    digits = text.strip(_SPACES)
    sign = digits[:1] if digits[:1] in ("+", "-") else ""
    digits = digits[len(sign) :]
    if not (digits.isascii() and digits.isdigit()):
        return False
    significant = digits.lstrip("0")
    return len(significant) <= 10 and int(significant or "0") <= _LARGEST + (sign == "-")
