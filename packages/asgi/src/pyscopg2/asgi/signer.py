"""Signs tokens, and reads only those that it has signed."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from enum import StrEnum

from pyscopg2.asgi.token import LONGEST, Token

_PURPOSE = b"pyscopg2.asgi.CausalMiddleware\0"
"""Signed with each token: the same secret may sign other things for other purposes."""

_DIGEST = len(urlsafe_b64encode(bytes(hashlib.sha256().digest_size)).rstrip(b"="))

MAX_LENGTH = LONGEST + 1 + _DIGEST
"""Characters of the longest token, with its signature."""

SKEW = 5.0
"""Seconds by which the clocks of two machines may differ."""


class Refusal(StrEnum):
    """Why a token is ignored, by the name that it has in `Counts`."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    FORGED = "forged"
    OLD = "old"
    EARLY = "early"
    FOREIGN = "foreign"


class Signer:
    """By HMAC-SHA256 (RFC 2104), with the first of its secrets; read is what any of them signed.

    The signature is compared as text, in constant time: each token has exactly one text.
    """

    __slots__ = ("_age_limit", "_keyed")

    def __init__(self, secrets: Sequence[bytes], age_limit: float) -> None:
        """``age_limit``: seconds that a token is in force."""
        # Not the secrets themselves, so that nobody comes across them here.
        self._keyed = tuple(hmac.new(secret, _PURPOSE, hashlib.sha256) for secret in secrets)
        self._age_limit = age_limit

    def sign(self, token: Token) -> str:
        """The token's text, its signature behind the last dot: at most `MAX_LENGTH` characters."""
        text = str(token).encode()
        return b".".join((text, _signature(self._keyed[0], text))).decode()

    def read(self, signed: bytes, now: float) -> Token | Refusal:
        """Any bytes. ``now``: in seconds since 1970.

        What is not signed is not looked into.
        """
        if len(signed) > MAX_LENGTH:
            return Refusal.OVERSIZED
        text, _, signature = signed.rpartition(b".")
        if not text or len(signature) != _DIGEST:
            return Refusal.MALFORMED
        if not any(hmac.compare_digest(_signature(k, text), signature) for k in self._keyed):
            return Refusal.FORGED
        try:
            token = Token.parse(text.decode("ascii"))
        except ValueError:
            # Of another version of this package.
            return Refusal.MALFORMED
        if now - token.issued > self._age_limit:
            return Refusal.OLD
        if token.issued - now > SKEW:
            return Refusal.EARLY
        return token


def _signature(keyed: hmac.HMAC, text: bytes) -> bytes:
    signing = keyed.copy()
    signing.update(text)
    return urlsafe_b64encode(signing.digest()).rstrip(b"=")
