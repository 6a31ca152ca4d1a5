"""What a DSN demands of a driver that does not use libpq.

Of libpq's parameters such a driver knows some. One that it does not know may be a convenience
(keepalives) and is left out, or a demand: a connection that does not meet it must not be made.
"""

from collections.abc import Container

from pyscopg2.core.dsn import KEYWORDS, Target

_ENDS_WITH_US = frozenset(
    {"load_balance_hosts", "passfile", "service", "servicefile", "target_session_attrs"}
)
_SATISFIED_BY = {
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "max_protocol_version": ("3.0", "latest"),
    "min_protocol_version": ("3.0",),
    "oauth_client_id": (),
    "oauth_client_secret": (),
    "oauth_issuer": (),
    "oauth_scope": (),
    "require_auth": (),
    "requirepeer": (),
    "scram_client_key": (),
    "scram_server_key": (),
    "sslcertmode": ("disable", "allow"),
    "sslcrl": (),
    "sslcrldir": (),
    "sslmode": ("disable", "allow", "prefer"),
    "sslnegotiation": ("postgres",),
}
"""Values that a driver meets without knowing the parameter, beside none at all."""


def supported(target: Target, known: Container[str]) -> dict[str, str]:
    """The parameters to hand to a driver that knows these of libpq's; others than libpq's, all.

    Not those that pyscopg2 has dealt with. `ValueError`: the DSN demands what the driver can't do,
    or is not UTF-8.
    """
    if not _is_utf8(target.to_conninfo()):
        raise ValueError("the driver takes a DSN in UTF-8 only")
    params: dict[str, str] = {}
    for name, value in target.params.items():
        if name in _ENDS_WITH_US:
            continue
        if name in known or name not in KEYWORDS:
            params[name] = value
        elif value and value not in _SATISFIED_BY.get(name, (value,)):
            raise ValueError(f"{name}: the driver can't do what the DSN demands")
    return params


def _is_utf8(text: str) -> bool:
    # The error carries the whole text, password included: it must not become a context of ours.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
