"""The page's document, which carries its style and its script within, and what it may do."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from pyscopg2.asgi.endpoint import Response

_FOLDER = files("pyscopg2.asgi") / "page"


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a Content-Security-Policy names what stands in a document."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _document() -> Response:
    style, script = _read("page.css"), _read("page.js")
    document = _read("page.html").replace("/* style */", style).replace("/* script */", script)
    # Nothing from elsewhere, nothing but these two texts, and no text that is taken for markup.
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash(style)}",
            f"script-src {_hash(script)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    headers = (
        (b"content-security-policy", policy.encode()),
        (b"referrer-policy", b"no-referrer"),
    )
    return Response(200, b"text/html; charset=utf-8", document.encode(), headers)


DOCUMENT = _document()
