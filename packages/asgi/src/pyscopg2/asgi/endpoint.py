"""What the health endpoints and the status page have in common as ASGI applications."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Headers = tuple[tuple[bytes, bytes], ...]

NOT_STORED: Headers = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""What is told is true of this moment, and of nobody else's business."""


@dataclass(frozen=True, slots=True)
class Response:
    """One that is sent as a whole."""

    status: int
    kind: bytes
    """Of the body: its media type."""
    body: bytes
    headers: Headers = ()

    async def send(self, scope: Any, send: Any) -> None:
        """To a HEAD without the body."""
        headers = [
            (b"content-type", self.kind),
            (b"content-length", b"%d" % len(self.body)),
            *NOT_STORED,
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else self.body
        await send({"type": "http.response.body", "body": body})


def as_json(value: object) -> bytes:
    """In one line of ASCII, whatever text is in it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def json_response(status: int, value: object, headers: Headers = ()) -> Response:
    """``value``: of what JSON knows."""
    return Response(status, b"application/json", as_json(value), headers)


def text_response(status: int, text: str, headers: Headers = ()) -> Response:
    """For people."""
    return Response(status, b"text/plain; charset=utf-8", text.encode(), headers)


class Endpoint:
    """An ASGI application for GET and HEAD, mounted in another one or run by itself."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI calls it. Websockets are refused.

        :raises ValueError: a kind of connection that ASGI did not have when this was written.
        :raises Exception: what a ``manager`` that is a function raises; `TypeError`: it returned
            no manager.
        """
        match scope["type"]:
            case "http" if scope["method"] in ("GET", "HEAD"):
                await self.get(scope, receive, send)
            case "http":
                allowed = text_response(405, "GET or HEAD", ((b"allow", b"GET, HEAD"),))
                await allowed.send(scope, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close"})
            case "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                self.close()
                await send({"type": "lifespan.shutdown.complete"})
            case kind:
                raise ValueError(f"not a kind of connection that is known here: {kind}")

    async def get(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a GET or a HEAD. Each of them does it in its own way."""
        raise NotImplementedError

    def close(self) -> None:
        """The application ends: end what is open. Safe to call again."""
