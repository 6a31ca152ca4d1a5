"""What a client carries from one request to the next."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyscopg2.asgi.reach import Reach
from pyscopg2.core.wal import WalPosition

_TEXT = re.compile(r"([pw])(0|[1-9a-f][0-9a-f]{0,11})(?:\.(.+))?")

LONGEST = 1 + 12 + 1 + 42
"""Characters of the longest text of a token, without its signature."""


@dataclass(frozen=True, slots=True)
class Token:
    """Its text is ``p`` or, where reads wait, ``w``; the moment in hexadecimal digits; and behind a
    dot the text of the position, if there is one. It may stand in a cookie and in a header."""

    issued: int
    """In whole seconds since 1970, rounded down, by the clock of the machine that issued it."""
    reach: Reach

    def __str__(self) -> str:
        kind = "w" if self.reach.waits else "p"
        position = self.reach.position
        return f"{kind}{self.issued:x}" + ("" if position is None else f".{position}")

    @classmethod
    def parse(cls, text: str) -> Token:
        """What `str` gave. `ValueError`: anything else."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError("not the text of a token")
        kind, issued, position = match.groups()
        reach = Reach(None if position is None else WalPosition.parse(position), kind == "w")
        return cls(int(issued, 16), reach)
