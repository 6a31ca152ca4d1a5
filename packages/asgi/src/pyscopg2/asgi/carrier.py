"""How tokens travel: in a cookie, in a header, or in both."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """The names that a token has, and what browsers are told of the cookie."""

    cookie: bytes | None
    header: bytes | None
    """In lower case."""
    secure: bool
    path: bytes

    def find(self, headers: Headers) -> Iterator[bytes]:
        """The tokens that a request carries, whatever they are. There may be several cookies of one
        name, of other paths or domains."""
        for name, value in headers:
            if name == self.header:
                yield value.strip()
            elif name == b"cookie" and self.cookie is not None:
                for pair in value.split(b";"):
                    key, _, text = pair.strip().partition(b"=")
                    if key == self.cookie:
                        yield text

    def headers(self, signed: str, max_age: int) -> Iterator[tuple[bytes, bytes]]:
        """What a response says, so that the client carries this token on. ``max_age``: seconds."""
        text = signed.encode()
        if self.header is not None:
            yield self.header, text
        if self.cookie is not None:
            secure = b"; Secure" if self.secure else b""
            yield (
                b"set-cookie",
                b"%b=%b; Max-Age=%d; Path=%b; HttpOnly; SameSite=Lax%b"
                % (self.cookie, text, max_age, self.path, secure),
            )
