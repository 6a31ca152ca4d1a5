"""What the middleware is given: mistakes are told where it is made, and secrets never."""

import traceback
from typing import Any

import pytest
from tests.asgi.support import SECRET, Manager

from pyscopg2.asgi import CausalMiddleware

NO_SECRET = "hunter2"
LONG = "hunter2" * 10


async def app(scope: object, receive: object, send: object) -> None:
    """Never called."""


def manager(_: object) -> Manager:
    """Never called."""
    raise AssertionError


GIVEN: dict[str, Any] = {"app": app, "manager": manager, "secret": SECRET}


@pytest.mark.parametrize(
    ("argument", "value", "error", "text"),
    [
        ("app", None, TypeError, "app must be an ASGI application, not NoneType"),
        ("manager", None, TypeError, "manager must be a pool manager, or a function"),
        ("manager", "postgresql://", TypeError, "manager must be .*, not str"),
        ("secret", None, TypeError, "secret must be str, bytes, or a sequence of these"),
        ("secret", 5, TypeError, "secret must be .* not int"),
        ("secret", {LONG}, TypeError, "secret must be .* not set"),
        ("secret", bytearray(32), TypeError, "a secret must be str or bytes, not int"),
        ("secret", [LONG, None], TypeError, "a secret must be str or bytes, not NoneType"),
        ("secret", [[LONG]], TypeError, "a secret must be str or bytes, not list"),
        ("secret", [], ValueError, "secret is an empty sequence"),
        ("secret", "", ValueError, "at least 32 bytes"),
        ("secret", NO_SECRET, ValueError, "at least 32 bytes"),
        ("secret", [LONG, NO_SECRET], ValueError, "at least 32 bytes"),
        ("secret", NO_SECRET + "\ud800", ValueError, "at least 32 bytes"),
        ("secret", b"x" * 31, ValueError, "at least 32 bytes"),
        ("cookie", "", ValueError, "cookie must be a name"),
        ("cookie", "a b", ValueError, "cookie must be a name"),
        ("cookie", "a=b", ValueError, "cookie must be a name"),
        ("cookie", "a\n", ValueError, "cookie must be a name"),
        ("cookie", b"a", TypeError, "cookie must be a str, not bytes"),
        ("cookie", None, ValueError, "both are None"),
        ("header", "a:", ValueError, "header must be a name"),
        ("header", 1, TypeError, "header must be a str, not int"),
        ("secure", 1, TypeError, "secure must be True or False, not int"),
        ("path", "app", ValueError, "path must begin with"),
        ("path", "/a; Domain=b", ValueError, "path must begin with"),
        ("path", "/\n", ValueError, "path must begin with"),
        ("path", None, TypeError, "path must be a str"),
        ("age_limit", "5", TypeError, "age_limit must be a number, not str"),
        ("age_limit", True, TypeError, "age_limit must be a number, not bool"),
        ("age_limit", 0.9, ValueError, "age_limit must be from 1 to"),
        ("age_limit", float("inf"), ValueError, "age_limit must be from 1 to"),
        ("age_limit", float("nan"), ValueError, "age_limit must be from 1 to"),
        ("age_limit", 10**400, ValueError, "age_limit must be from 1 to"),
    ],
)
def test_a_mistake_is_told_without_the_secret(
    argument: str, value: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as raised:
        CausalMiddleware(**GIVEN | {argument: value})
    told = "".join(traceback.format_exception(raised.value))
    assert "hunter2" not in told
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"cookie": "__Secure-a", "secure": False}, "unless it is secure"),
        ({"cookie": "__Host-a", "secure": False}, "unless it is secure"),
        ({"cookie": "__Host-a", "path": "/app"}, "unless its path"),
    ],
)
def test_a_cookie_that_browsers_refuse(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        CausalMiddleware(**GIVEN, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"secret": b"x" * 32},
        {"secret": (SECRET, b"x" * 32)},
        {"secret": "\ud800" * 11},
        {"cookie": "__Host-causal"},
        {"cookie": None, "header": "X-Causal"},
        {"age_limit": 1},
        {"age_limit": 34_560_000},
        {"secure": False, "path": "/app/"},
    ],
)
def test_what_is_right(settings: dict[str, Any]) -> None:
    made = CausalMiddleware(**GIVEN | settings)
    assert SECRET not in repr(vars(made))
    assert "xxxx" not in repr(vars(made))
