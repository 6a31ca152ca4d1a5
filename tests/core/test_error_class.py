import ssl
import time
from collections.abc import Callable

import pytest

from pyscopg2.core.diagnosis.error_class import is_hopeless, is_misuse, is_suspicious
from pyscopg2.core.diagnosis.redaction import describe
from pyscopg2.core.dsn import parse_dsn
from pyscopg2.testing.fake_server import FakeError

Wrap = Callable[[str], Exception]


def sqlstate(exc: BaseException) -> str | None:
    return exc.sqlstate if isinstance(exc, FakeError) else None


def caused(sqlstate: str) -> Exception:
    try:
        raise OSError("wrapped") from FakeError.of(sqlstate)
    except OSError as exc:
        return exc


def grouped(sqlstate: str) -> Exception:
    return ExceptionGroup("all hosts", [OSError(), FakeError.of(sqlstate)])


def met_while_handling(sqlstate: str) -> Exception:
    try:
        try:
            raise FakeError.of(sqlstate)
        except FakeError:
            raise KeyError from None
    except KeyError as exc:
        return exc


@pytest.mark.parametrize("wrap", [FakeError.of, caused, grouped])
@pytest.mark.parametrize(
    "code", ["28P01", "28000", "3D000", "22023", "42501", "42602", "42704", "55P02"]
)
def test_waiting_does_not_heal(code: str, wrap: Wrap) -> None:
    assert is_hopeless(wrap(code), sqlstate)
    assert not is_suspicious(wrap(code), sqlstate)


@pytest.mark.parametrize("wrap", [FakeError.of, caused, grouped, met_while_handling])
@pytest.mark.parametrize("code", ["25006", "57P01", "57P02", "08006", "08003"])
def test_the_host_may_have_changed(code: str, wrap: Wrap) -> None:
    assert is_suspicious(wrap(code), sqlstate)


@pytest.mark.parametrize("code", ["53300", "57P03"])
def test_waiting_may_heal(code: str) -> None:
    assert not is_hopeless(FakeError.of(code), sqlstate)


@pytest.mark.parametrize("code", ["23505", "40001", "42601"])
def test_errors_of_a_statement_tell_nothing(code: str) -> None:
    error = FakeError.of(code)
    assert not is_suspicious(error, sqlstate)
    assert not is_hopeless(error, sqlstate)


@pytest.mark.parametrize("error", [OSError(), TimeoutError(), FakeError("closed"), RuntimeError()])
def test_a_network_that_fails_is_no_misuse(error: Exception) -> None:
    assert not is_misuse(error)
    assert not is_hopeless(error, sqlstate)


@pytest.mark.parametrize("error", [TypeError(), ValueError(), KeyError(), AttributeError()])
def test_a_bad_argument_is_misuse_and_does_not_heal(error: Exception) -> None:
    assert is_misuse(error)
    assert is_hopeless(error, sqlstate)


def test_a_certificate_that_does_not_verify_is_the_hosts_fault() -> None:
    assert not is_misuse(ssl.SSLCertVerificationError())


def test_causes_that_run_in_a_circle() -> None:
    error, other = OSError(), OSError()
    error.__cause__, other.__cause__ = other, error
    assert not is_suspicious(error, sqlstate)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError(), "TimeoutError"),
        (OSError("  one\ntwo"), "OSError: one"),
        (OSError("x" * 999), "OSError: " + "x" * 200),
        (OSError("login app/secret refused"), "OSError: login app/*** refused"),
        # The longest first.
        (OSError("secret phrase, secret"), "OSError: ***, ***"),
        (OSError("more than\na line"), "OSError: ***"),
        # Short ones would be told by what is left; within a word they tell nothing.
        (OSError('for user "pw"'), "OSError: ***"),
        (OSError("password, pwx, xpw"), "OSError: password, pwx, xpw"),
        (OSError("**** ** ***"), "OSError: **** ** ***"),
        (OSError("that's *"), "OSError: ***"),
    ],
)
def test_an_error_is_one_short_line_without_secrets(error: Exception, text: str) -> None:
    secrets = ("secret", "secret phrase", "more than\na line", "pw", "s *", "")
    assert describe(error, secrets) == text


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("one\r2026-01-01 LOG: forged", "one\\r2026-01-01 LOG: forged"),
        ("\x1b[2J\x07\x00\x08", "\\x1b[2J\\x07\\x00\\x08"),
        ("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg", "a\\u2028b\\u2029c\\x85d\\x0be\\x0cf\\x1cg"),
        ("\u202eturned\u2066\u200b\ufeff", "\\u202eturned\\u2066\\u200b\\ufeff"),
        ("\udcff lone", "\\udcff lone"),
        ("\U000e0041", "\\U000e0041"),
        ("r\xf4le «\xa0app\xa0» \u6b21 \U0001f600", "r\xf4le «\xa0app\xa0» \u6b21 \U0001f600"),
        ("\x1b" * 300, "\\x1b" * 50),
    ],
)
def test_what_cannot_be_printed_is_escaped(said: str, shown: str) -> None:
    assert describe(OSError(said)) == f"OSError: {shown}"


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("oh")


def test_an_error_that_cannot_say_what_is_wrong() -> None:
    assert describe(SpeechlessError()) == "SpeechlessError"


@pytest.mark.parametrize("before", range(3960, 4010))
def test_a_secret_that_is_half_in_what_is_looked_through_is_not_shown(before: int) -> None:
    """What comes before shrinks to a few characters, as it is secret, too."""
    shrinks, other = "secret-of-forty-characters-that-shrinks-", "the-other-secret"
    text = shrinks * (before // 40) + "." * (before % 40) + other
    assert "the" not in describe(OSError(text), [shrinks, other])


def test_a_server_that_says_megabytes_costs_no_time() -> None:
    """A hundredth of what it took."""
    secrets = ["-".join(["secret"] * n) for n in range(2, 12)] + ["pw", "x"]
    began = time.process_time()
    for text in ("a " * 10_000_000, "secret-secre" * 2_000_000, '"pw' * 5_000_000):
        describe(OSError(text), secrets)
    assert time.process_time() - began < 0.5


def test_without_secrets_an_error_is_as_it_is() -> None:
    assert describe(OSError("a b")) == "OSError: a b"
    assert describe(OSError("a b"), [""]) == "OSError: a b"


def test_what_a_server_says_of_a_targets_secrets() -> None:
    (target,) = parse_dsn(
        "postgresql://app:Zq7@db1/shop?options=-c%20app.token%3DXk9-Wj5&sslpassword=Vb4-Vb4"
    )
    said = 'parameter "app.token" of "app": "Xk9-Wj5", "-c app.token=Xk9-Wj5", Vb4-Vb4'
    error = describe(OSError(said), target.secrets)
    assert error == 'OSError: parameter "app.token" of "app": "***", "***", ***'
    assert describe(OSError('"Zq7"'), target.secrets) == "OSError: ***"
