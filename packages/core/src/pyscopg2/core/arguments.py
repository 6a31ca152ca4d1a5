"""What users give to a manager, looked at: what is wrong is said by the name that they gave."""

import math
import reprlib
import sys
from collections.abc import Collection, Mapping
from typing import Any

from pyscopg2.balancer_policy import BalancerPolicy
from pyscopg2.core.wal import WalPosition

_TARGET_OPTIONS = frozenset({"dsn", "conninfo", "host", "hostaddr", "port"})


def require_options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """``pool_factory_kwargs``."""
    if given is None:
        return {}
    # Callers without a type checker.
    if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"pool_factory_kwargs must be a mapping, not {type(given).__name__}")
    for name in given:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"pool_factory_kwargs: a name is a str, not {_shown(name)}")
    options = dict(given)
    if misplaced := _TARGET_OPTIONS & options.keys():
        raise TypeError(f"pool_factory_kwargs: {', '.join(sorted(misplaced))} is for the DSN")
    return options


def require_policy(policy: BalancerPolicy | type[BalancerPolicy]) -> BalancerPolicy:
    """``balancer_policy``: an instance, made where a class was given."""
    made = policy() if isinstance(policy, type) else policy
    if not callable(getattr(made, "choose", None)):
        raise TypeError(
            "balancer_policy must be a class of pyscopg2.balancer_policy, or an object with a"
            f" method `choose`, not {_shown(policy)}"
        )
    return made


def require_flag(name: str, value: bool) -> bool:
    """`TypeError`: it is neither True nor False."""
    if value is not True and value is not False:
        raise not_a_flag(name, value)
    return value


def not_a_flag(name: str, value: object) -> TypeError:
    """For `acquire`, which looks at its flags by itself, since that is on the way of each."""
    return TypeError(f"{name} must be True or False, not {_shown(value)}")


def require_seconds(name: str, value: float, *, zero: bool = False) -> float:
    """`TypeError`: no number. `ValueError`: not above 0, or where ``zero`` is allowed not at least
    that; not finite."""
    _require_number(name, value, int, float)
    if not (value > 0 or (zero and value == 0)):
        raise ValueError(f"{name} must be {'at least' if zero else 'above'} 0, not {_shown(value)}")
    # Not `math.isfinite`, which takes no whole number that is too large for a float.
    if value > sys.float_info.max:
        raise ValueError(f"{name} must be finite, not {_shown(value)}")
    return value


def require_max_lag(value: float) -> float:
    """``max_lag``: `require_seconds`, or infinity for no bound."""
    return value if value == math.inf else require_seconds("max_lag", value)


def require_position(value: WalPosition | str) -> WalPosition:
    """``after``, or its text. `TypeError`, `ValueError`."""
    if isinstance(value, WalPosition):
        return value
    # Callers without a type checker.
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"after must be a WalPosition or its text, not {type(value).__name__}")
    return WalPosition.parse(value)


def require_patience(value: float, fallback_master: bool) -> float:
    """``patience``: `require_seconds`, 0 among them. `ValueError` without ``fallback_master``."""
    if not fallback_master:
        raise ValueError("patience is for reads that a master may serve: fallback_master=True")
    return require_seconds("patience", value, zero=True)


def require_timeout(value: float) -> float:
    """``timeout``: `require_seconds`, 0 among them."""
    return require_seconds("timeout", value, zero=True)


def require_weight(value: float) -> float:
    """``master_as_replica_weight``."""
    _require_number("master_as_replica_weight", value, int, float)
    if not 0 <= value <= 1:
        raise ValueError(f"master_as_replica_weight must be within [0, 1], not {_shown(value)}")
    return value


def require_count(name: str, value: int, *, least: int = 0) -> int:
    """`TypeError`: no whole number. `ValueError`: below ``least``, or absurdly large."""
    _require_number(name, value, int)
    if value < least:
        least_of_all = f"be at least {least}" if least else "not be negative"
        raise ValueError(f"{name} must {least_of_all}: {_shown(value)}")
    if value > sys.maxsize:
        raise ValueError(f"{name} must be at most {sys.maxsize}: {_shown(value)}")
    return value


def require_hosts(needed: int, what: str, addresses: Collection[str]) -> None:
    """`ValueError`: ``what`` needs more hosts than there are, and so can never be."""
    if needed > len(addresses):
        hosts = "1 host" if len(addresses) == 1 else f"{len(addresses)} hosts"
        known = ", ".join(addresses)
        raise ValueError(f"{what} can never be: the DSN has {hosts}, each with one role: {known}")


def _require_number(name: str, value: object, *types: type) -> None:
    if isinstance(value, bool) or not isinstance(value, types):
        kind = "a number" if float in types else "a whole number"
        raise TypeError(f"{name} must be {kind}, not {type(value).__name__}")


def _shown(value: object) -> str:
    try:
        return reprlib.repr(value)
    except Exception:
        # A number of more digits than Python writes, above all.
        return "this one"
