"""What a DSN demands of a driver that does not use libpq.

Of libpq's parameters such a driver knows some. One that it does not know may be a convenience
(keepalives) and is left out, or a demand: a connection that does not meet it must not be made.
"""

import os
from collections.abc import Container, Mapping

from pyscopg2.core.dsn.keywords import ENVIRONMENT, KEYWORDS
from pyscopg2.core.dsn.target import Target

_ENDS_WITH_US = frozenset({"load_balance_hosts", "passfile", "service", "target_session_attrs"})
_CONVENIENCES = frozenset(
    {
        "client_encoding",
        "fallback_application_name",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "sslcompression",
        "sslkeylogfile",
        "tcp_user_timeout",
    }
)
_SATISFIED_BY = {
    "channel_binding": ("disable", "prefer"),
    "gssdelegation": ("", "0"),
    "gssencmode": ("disable", "prefer"),
    "max_protocol_version": ("3.0", "3.2", "latest"),
    "min_protocol_version": ("3.0",),
    "sslcertmode": ("allow",),
    "sslmode": ("disable", "allow", "prefer"),
    "sslnegotiation": ("postgres",),
    "sslsni": ("1",),
}
"""Values that a driver meets without knowing the parameter. Of the rest, only an empty one."""

_SETTINGS = ("application_name", "options", "replication")
"""libpq tells them the server, unless they are empty."""


def supported(
    target: Target, known: Container[str], environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The parameters to hand to a driver that knows these of libpq's; others than libpq's, all.

    Not those that pyscopg2 has dealt with. ``environ`` is where the driver looks for what it was
    not given. `ValueError`: the DSN demands what the driver can't do, or is not UTF-8.
    """
    if not _is_utf8(target.to_conninfo()):
        raise ValueError("the driver takes a DSN in UTF-8 only")
    params: dict[str, str] = {}
    for name, value in target.params.items():
        if name == "database":
            raise ValueError("database: a DSN has the database in dbname, or behind the hosts")
        if name in known or name not in KEYWORDS:
            params[name] = _as_drivers_write_it(name, value)
            if name.startswith("ssl") and not value and environ.get(ENVIRONMENT.get(name, "")):
                raise ValueError(f"{name}: empty, but the driver would take {ENVIRONMENT[name]}")
        elif name not in _ENDS_WITH_US and not may_be_left_out(name, value):
            raise ValueError(f"{name}: the driver can't do what the DSN demands")
    if "application_name" in known and (given := target.params.get("fallback_application_name")):
        params.setdefault("application_name", given)
    return params


def may_be_left_out(name: str, value: str) -> bool:
    """Whether a driver that does not know this parameter of libpq's does as it says even so."""
    if name in _CONVENIENCES:
        return True
    return name in KEYWORDS and value in _SATISFIED_BY.get(name, ("",))


def take_settings(params: dict[str, str]) -> dict[str, str]:
    """Takes out of the `supported` parameters what the server is told, and returns it."""
    names = [name for name in params if name in _SETTINGS or name not in KEYWORDS]
    taken = {name: params.pop(name) for name in names}
    return {name: value for name, value in taken.items() if value or name not in _SETTINGS}


def _as_drivers_write_it(name: str, value: str) -> str:
    """For libpq, ``tlsv1.2`` is one, too."""
    is_version = name in ("ssl_min_protocol_version", "ssl_max_protocol_version")
    return value.upper().replace("V", "v") if is_version else value


def _is_utf8(text: str) -> bool:
    # The error carries the whole text, password included: it must not become a context of ours.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
