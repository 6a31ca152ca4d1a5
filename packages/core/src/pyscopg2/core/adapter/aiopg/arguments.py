"""What a target and the user's options are to aiopg."""

import inspect
from functools import cache
from typing import Any

from pyscopg2.core.adapter.driver_params import may_be_left_out
from pyscopg2.core.dsn.target import Target

_FACTORIES = {"connection_factory", "cursor_factory"}
"""What `psycopg2.connect` takes beside libpq's parameters."""

_FROM_THE_TARGET = {"dsn", "host", "hostaddr", "port"}

_CHOICE_OF_HOST = {"target_session_attrs", "load_balance_hosts"}
"""The manager's."""


class PoolArguments:
    """Those of aiopg's pools: its own, the factories, and whatever libpq knows."""

    def __init__(
        self, driver: str, aiopg: Any, psycopg2: Any, *, own: frozenset[str] = frozenset()
    ) -> None:
        """``own``: options that are neither aiopg's nor libpq's."""
        self._driver = driver
        self._own = own
        self._extensions = psycopg2.extensions
        self._refused: type[Exception] = psycopg2.ProgrammingError
        parameters = inspect.signature(aiopg.create_pool).parameters.values()
        self._defaults: dict[str, Any] = {
            each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY
        }
        self._is_known_to_libpq = cache(self._ask_libpq)

    def check(self, target: Target, options: dict[str, Any]) -> None:
        """`TypeError` for an unknown option, `ValueError` for what aiopg or libpq would refuse."""
        unknown = [
            name
            for name in self._for_libpq(options)
            if name in _FROM_THE_TARGET | _CHOICE_OF_HOST or not self._is_known_to_libpq(name)
        ]
        if unknown:
            named = ", ".join(sorted(unknown))
            raise TypeError(f"{self._driver} knows no such pool option: {named}")
        sizes = {name: options.get(name, self._defaults[name]) for name in ("minsize", "maxsize")}
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 0:
                raise ValueError(f"{name} must be a whole number, at least 0: {size!r}")
        if 0 < sizes["maxsize"] < sizes["minsize"]:
            raise ValueError(f"minsize ({sizes['minsize']}) is above maxsize ({sizes['maxsize']})")
        connect_timeout(self.settings(target, options))

    def settings(self, target: Target, options: dict[str, Any]) -> dict[str, Any]:
        """What libpq is told. `ValueError` where it would not take that."""
        # An older libpq does not know all that there may be, in the environment above all.
        settings: dict[str, Any] = {
            name: value
            for name, value in target.to_kwargs().items()
            if self._is_known_to_libpq(name) or not may_be_left_out(name, str(value))
        }
        settings |= {
            "dbname" if name == "database" else name: value
            for name, value in self._for_libpq(options).items()
        }
        # Of one host there is nothing to choose, whatever the environment says.
        settings["target_session_attrs"] = "any"
        try:
            self.dsn(settings)
        except (self._refused, UnicodeEncodeError):
            # Without the cause, which may show the password.
            version = self._extensions.libpq_version()
            raise ValueError(f"libpq {version} refuses the DSN") from None
        return settings

    def dsn(self, settings: dict[str, Any]) -> str:
        return str(self._extensions.make_dsn(**settings))

    def of_pool(self, options: dict[str, Any]) -> dict[str, Any]:
        """What the constructor of aiopg's pools takes beside the DSN."""
        names = self._defaults.keys() | _FACTORIES
        return self._defaults | {name: options[name] for name in options.keys() & names}

    def _for_libpq(self, options: dict[str, Any]) -> dict[str, Any]:
        names = options.keys() - self._defaults.keys() - _FACTORIES - self._own
        return {name: options[name] for name in options if name in names}

    def _ask_libpq(self, name: str) -> bool:
        try:
            self.dsn({name: ""})
        except self._refused:
            return False
        return True


def connect_timeout(settings: dict[str, Any]) -> float | None:
    """Seconds, or None for no limit; `ValueError` where it is not a whole number."""
    timeout = int(settings.get("connect_timeout") or 0)
    return timeout if timeout > 0 else None
