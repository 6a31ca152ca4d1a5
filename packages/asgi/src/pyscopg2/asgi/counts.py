"""What a middleware has seen so far."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens that came, by what became of them, and writes, by whether their client was told.

    Of this process, since the middleware was made. A snapshot: it does not change.
    """

    accepted: int = 0
    """Tokens that were in force."""
    oversized: int = 0
    """Longer than any that was ever issued."""
    malformed: int = 0
    """No text that was ever issued."""
    forged: int = 0
    """Signed with none of the secrets."""
    old: int = 0
    """Issued longer ago than the age limit."""
    early: int = 0
    """Issued later than now: the clocks of two machines differ."""
    foreign: int = 0
    """Of another system than the manager's, which was replaced perhaps."""
    told: int = 0
    """Responses that carry a new token."""
    untold: int = 0
    """Requests and websockets that wrote something of which no response of theirs told: it had been
    sent by then, or was never sent."""
