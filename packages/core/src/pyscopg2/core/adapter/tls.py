"""TLS that trusts whom the system trusts: `sslrootcert=system`, for a driver without libpq."""

import ssl
from pathlib import Path

_NAMES = (
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslpassword",
    "sslrootcert",
)


def take_system_context(params: dict[str, str]) -> ssl.SSLContext | None:
    """Takes out of the parameters (`driver_params.supported`) what a TLS context of its own does.

    None, and nothing is taken, without ``sslrootcert=system``. The client's certificate is that of
    the DSN, or the one in ``~/.postgresql``, as for libpq; it is read here and now. `ValueError`:
    there is a list of revoked certificates, too. `OSError`: the certificate can't be read.
    """
    if params.get("sslrootcert") != "system":
        return None
    given = {name: params.pop(name, "") for name in _NAMES}
    if given["sslcrl"]:
        raise ValueError("sslcrl: the driver has none with sslrootcert=system")
    context = ssl.create_default_context()
    context.set_alpn_protocols(["postgresql"])
    if version := given["ssl_min_protocol_version"]:
        context.minimum_version = ssl.TLSVersion[version.replace(".", "_")]
    if version := given["ssl_max_protocol_version"]:
        context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    certificate = given["sslcert"] or _default("postgresql.crt")
    if certificate is not None:
        # A function: with None, a key that needs a password asks for it on the terminal.
        key = given["sslkey"] or _default("postgresql.key")
        context.load_cert_chain(certificate, key, lambda: given["sslpassword"])
    return context


def _default(name: str) -> Path | None:
    path = Path("~/.postgresql", name).expanduser()
    return path if path.exists() else None
