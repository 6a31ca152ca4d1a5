"""What a target and the user's options are to asyncpg."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from pyscopg2.core.adapter.driver_params import supported, take_settings
from pyscopg2.core.adapter.tls import take_system_context
from pyscopg2.core.dsn.target import Target

SIZES = {"min_size": 10, "max_size": 10}
"""asyncpg's defaults (`asyncpg.create_pool`)."""

_FROM_THE_TARGET = {"dsn", "host", "port", "passfile", "service", "servicefile", "loop"}

_CHOICE_OF_HOST = {"target_session_attrs", "load_balance_hosts"}
"""The manager's."""

_KNOWN = {
    "application_name",
    "connect_timeout",
    "gsslib",
    "krbsrvname",
    "options",
    "replication",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
}
"""Of libpq's parameters, those that have an effect. The server sees some of them."""

_OF_QUERIES = {
    "command_timeout",
    "connection_class",
    "loop",
    "max_cacheable_statement_size",
    "max_cached_statement_lifetime",
    "record_class",
}
"""Of `asyncpg.connect`'s arguments, those that say nothing of connecting."""


def asyncpg_arguments(target: Target, options: Mapping[str, Any]) -> dict[str, Any]:
    """A target as `asyncpg.connect` takes it: what has no argument of its own goes as a DSN.

    The user's options go first, and so does each of their server settings. `ValueError`: the DSN
    demands what asyncpg can't do.
    """
    params = supported(target, _KNOWN)
    arguments: dict[str, Any] = {
        "host": target.hostaddr or target.host,
        "port": target.port,
        "user": target.user,
        # Not None: asyncpg would look for one, in places and by rules of its own.
        "password": target.password or "",
        "database": target.dbname,
        # Of one host there is nothing to choose, whatever the environment says.
        "target_session_attrs": "any",
    }
    connect_timeout = params.pop("connect_timeout", None)
    if connect_timeout is not None and int(connect_timeout) > 0:
        arguments["timeout"] = int(connect_timeout)
    settings = take_settings(params)
    context = take_system_context(params)  # to asyncpg, a file's name
    if context is not None:
        arguments["ssl"] = context
    if params:
        arguments["dsn"] = f"postgresql://?{urlencode(params)}"
    settings |= options.get("server_settings") or {}
    return {**arguments, **options, "server_settings": settings}


class PoolArguments:
    """Those of one function that makes asyncpg's pools."""

    def __init__(
        self,
        driver: str,
        create_pool: Callable[..., Any],
        connect: Callable[..., Any],
        *,
        own: frozenset[str] = frozenset(),
    ) -> None:
        """``connect`` is asyncpg's. ``own``: options that the signatures do not tell."""
        self._driver = driver
        named = _keywords(create_pool) | _keywords(connect) | own
        self._known = named - _FROM_THE_TARGET - _CHOICE_OF_HOST
        self._connects = _names(connect) - _OF_QUERIES

    def check(self, target: Target, options: dict[str, Any]) -> None:
        """`TypeError` for an unknown option, `ValueError` for what asyncpg would refuse."""
        if unknown := options.keys() - self._known:
            named = ", ".join(sorted(unknown))
            raise TypeError(f"{self._driver} knows no such pool option: {named}")
        sizes = SIZES | {name: options[name] for name in SIZES if name in options}
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 0:
                raise ValueError(f"{name} must be a whole number, at least 0: {size!r}")
        least, most = sizes["min_size"], sizes["max_size"]
        if most < 1:
            raise ValueError("max_size must be at least 1")
        if least > most:
            raise ValueError(f"min_size ({least}) is above max_size ({most})")
        asyncpg_arguments(target, options)

    def to_connect(self, target: Target, options: dict[str, Any]) -> dict[str, Any]:
        """Those of `asyncpg.connect`, for a connection that is no user's.

        Without an encoding of the user's: asyncpg asks for UTF-8 by itself.
        """
        arguments = asyncpg_arguments(target, options)
        settings: dict[str, str] = arguments["server_settings"]
        return {name: arguments[name] for name in arguments.keys() & self._connects} | {
            "server_settings": {
                name: settings[name] for name in settings if name.lower() != "client_encoding"
            }
        }


def _names(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


def _keywords(function: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
