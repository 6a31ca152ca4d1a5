"""What is found in the headers of requests."""

import pytest

from pyscopg2.asgi.carrier import Carrier

CARRIER = Carrier(cookie=b"causal", header=b"x-causal", secure=True, path=b"/")


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], []),
        ([(b"cookie", b"causal=1")], [b"1"]),
        ([(b"cookie", b"a=0; causal=1; b=2")], [b"1"]),
        ([(b"cookie", b"a=0;causal=1;b=2")], [b"1"]),
        ([(b"cookie", b"a=0"), (b"cookie", b"causal=1"), (b"cookie", b"causal=2")], [b"1", b"2"]),
        ([(b"cookie", b"causal=1; causal=2")], [b"1", b"2"]),
        ([(b"cookie", b"causal=1=2")], [b"1=2"]),
        ([(b"cookie", b"causal=")], [b""]),
        ([(b"cookie", b"causal")], [b""]),
        ([(b"cookie", b"causality=1; xcausal=1; CAUSAL=1; a=causal=1")], []),
        ([(b"cookie", b"; ;=; =causal")], []),
        ([(b"cookie", b"\xff\x00=\xff; causal=\xff")], [b"\xff"]),
        ([(b"x-causal", b" 1 ")], [b"1"]),
        ([(b"x-causal", b"1"), (b"cookie", b"causal=2")], [b"1", b"2"]),
        ([(b"causal", b"1"), (b"set-cookie", b"causal=2")], []),
    ],
)
def test_what_a_request_carries(headers: list[tuple[bytes, bytes]], found: list[bytes]) -> None:
    assert list(CARRIER.find(headers)) == found


def test_without_a_cookie_or_a_header_none_is_read_or_set() -> None:
    headers = [(b"x-causal", b"1"), (b"cookie", b"causal=2")]
    only = Carrier(cookie=None, header=b"x-causal", secure=True, path=b"/")
    assert list(only.find(headers)) == [b"1"]
    assert list(only.headers("3", 60)) == [(b"x-causal", b"3")]
    only = Carrier(cookie=b"causal", header=None, secure=False, path=b"/app")
    assert list(only.find(headers)) == [b"2"]
    line = b"causal=3; Max-Age=60; Path=/app; HttpOnly; SameSite=Lax"
    assert list(only.headers("3", 60)) == [(b"set-cookie", line)]
