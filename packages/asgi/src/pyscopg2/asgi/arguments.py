"""What users give to this package, looked at: nothing here ever shows a secret."""

import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias, TypeGuard, cast

from pyscopg2.asgi.carrier import Carrier
from pyscopg2.base import BasePoolManager

Application: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]
"""Frameworks have types of their own for scope, receive and send: any of them will do."""

Manager: TypeAlias = BasePoolManager[Any, Any]
ManagerOf: TypeAlias = Callable[[MutableMapping[str, Any]], Manager]
"""The manager of a connection, by its scope."""
Secret: TypeAlias = str | bytes

LEAST_SECRET = 32
"""Bytes: as long as the hash's output (RFC 2104, section 3)."""

LONGEST_AGE = 400 * 24 * 3600
"""Seconds that browsers keep a cookie at most (RFC 6265bis, section 5.5)."""

LONGEST_STREAM = 24 * 3600
"""Seconds that a page may go on without asking anew."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of RFC 9110, section 5.6.2: what a header's or a cookie's name is."""

_PATH = re.compile(r"/[\x21-\x3a\x3c-\x7e]*")


def require_app(app: Application) -> Application:
    """`TypeError`: it can't be called."""
    # Callers without a type checker.
    if not callable(app):
        raise TypeError(f"app must be an ASGI application, not {type(app).__name__}")
    return app


def require_manager(manager: object) -> ManagerOf:
    """``manager``, or what gives it. `TypeError`."""
    if is_manager(manager):
        return lambda _: manager
    if not callable(manager):
        raise TypeError(
            "manager must be a pool manager, or a function of the ASGI scope that returns one,"
            f" not {_kind(manager)}"
        )

    def manager_of(scope: MutableMapping[str, Any]) -> Manager:
        found: object = manager(scope)
        if not is_manager(found):
            raise TypeError(f"manager(scope) must return a pool manager, not {_kind(found)}")
        return found

    return manager_of


def is_manager(value: object) -> TypeGuard[Manager]:
    """Rather than what gives one."""
    return isinstance(value, BasePoolManager)


def require_secrets(secret: object) -> list[bytes]:
    """``secret``: one or several. `TypeError`, `ValueError`."""
    if isinstance(secret, str | bytes):
        return [_require_secret(secret)]
    if not isinstance(secret, Sequence):
        raise TypeError(f"secret must be str, bytes, or a sequence of these, not {_kind(secret)}")
    several = cast(Sequence[object], secret)
    if not several:
        raise ValueError("secret is an empty sequence: there must be at least one")
    return [_require_secret(each) for each in several]


def _require_secret(secret: object) -> bytes:
    if not isinstance(secret, str | bytes):
        raise TypeError(f"a secret must be str or bytes, not {_kind(secret)}")
    # An error of the encoder's would carry the secret along.
    encoded = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    if len(encoded) < LEAST_SECRET:
        raise ValueError(
            f"a secret must have at least {LEAST_SECRET} bytes: secrets.token_urlsafe() makes one"
        )
    return encoded


def require_carrier(cookie: str | None, header: str | None, secure: bool, path: str) -> Carrier:
    """`TypeError`, `ValueError`: neither a cookie nor a header; a name that can be none; a cookie
    that browsers would refuse."""
    _require_name("cookie", cookie)
    _require_name("header", header)
    if cookie is None and header is None:
        raise ValueError("give a cookie's or a header's name: both are None")
    if secure is not True and secure is not False:
        raise TypeError(f"secure must be True or False, not {_kind(secure)}")
    _require_text("path", path)
    if not _PATH.fullmatch(path):
        raise ValueError("path must begin with '/', and be of ASCII without spaces and ';'")
    prefix = "" if cookie is None else cookie.lower()
    if prefix.startswith(("__host-", "__secure-")) and not secure:
        raise ValueError("browsers refuse a cookie of this name unless it is secure")
    if prefix.startswith("__host-") and path != "/":
        raise ValueError("browsers refuse a cookie of this name unless its path is '/'")
    return Carrier(
        None if cookie is None else cookie.encode(),
        None if header is None else header.lower().encode(),
        secure,
        path.encode(),
    )


def _require_name(argument: str, name: str | None) -> None:
    if name is None:
        return
    _require_text(argument, name)
    if not _NAME.fullmatch(name):
        raise ValueError(f"{argument} must be a name of letters, digits and !#$%&'*+-.^_`|~")


def _require_text(argument: str, text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{argument} must be a str, not {_kind(text)}")


def require_age_limit(seconds: object) -> float:
    """``age_limit``. `TypeError`, `ValueError`."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"age_limit must be a number, not {_kind(seconds)}")
    if not 1 <= seconds <= LONGEST_AGE:
        raise ValueError(f"age_limit must be from 1 to {LONGEST_AGE} seconds")
    return seconds


def require_count(argument: str, count: object) -> int:
    """`TypeError`, `ValueError`: it is negative."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{argument} must be a whole number, not {_kind(count)}")
    if count < 0:
        raise ValueError(f"{argument} must not be negative, not {count}")
    return count


def require_title(title: object) -> str:
    """`TypeError`, `ValueError`: it is empty."""
    if not isinstance(title, str):
        raise TypeError(f"title must be a str, not {_kind(title)}")
    if not title.strip():
        raise ValueError("title must not be empty")
    return title


def require_renewal(seconds: object) -> float:
    """``renew_after``. `TypeError`, `ValueError`."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"renew_after must be a number, not {_kind(seconds)}")
    if not 1 <= seconds <= LONGEST_STREAM:
        raise ValueError(f"renew_after must be from 1 to {LONGEST_STREAM} seconds")
    return seconds


def _kind(value: object) -> str:
    return type(value).__name__
