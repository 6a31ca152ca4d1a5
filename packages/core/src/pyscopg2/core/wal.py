"""Positions in the write-ahead log: points in a cluster's history."""

import re
from dataclasses import dataclass
from typing import Self

_TEXT = re.compile(r"([1-9a-f][0-9a-f]{0,15})\.([1-9a-f][0-9a-f]{0,7})\.(0|[1-9a-f][0-9a-f]{0,15})")

_MOST = {"system_identifier": 2**64 - 1, "timeline": 2**32 - 1, "lsn": 2**64 - 1}


@dataclass(frozen=True, slots=True)
class WalPosition:
    """A position of one timeline of one system.

    Two of them can be compared where they are of one timeline of one system; else ``<`` and its
    kin raise `TypeError`: on another timeline a higher LSN may be of another history.
    """

    system_identifier: int
    """Of the cluster, from `initdb` on; its copies have the same (manual, "pg_control_system")."""
    timeline: int
    lsn: int
    """In bytes from the beginning of the log (manual, 8.20 "pg_lsn Type")."""

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value: object = getattr(self, name)
            least = 0 if name == "lsn" else 1
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}")

    def __str__(self) -> str:
        """All of it in at most 42 characters, which may stand in a cookie, a header and a URL."""
        return f"{self.system_identifier:x}.{self.timeline:x}.{self.lsn:x}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` gave. `ValueError`: anything else. `TypeError`: not a `str`."""
        # Callers without a type checker.
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"the text of a WAL position is a str, not {type(text).__name__}")
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError("not the text of a WAL position")
        system_identifier, timeline, lsn = (int(number, 16) for number in match.groups())
        return cls(system_identifier, timeline, lsn)

    def merge(self, other: "WalPosition | None") -> "WalPosition":
        """The later of the two: the higher LSN of one timeline, else the one on the newer timeline.

        None stands for no position. `ValueError`: they are of two systems.
        """
        if other is None:
            return self
        if self.system_identifier != other.system_identifier:
            raise ValueError("two WAL positions of different systems have no later one")
        return max(self, other, key=_place)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, WalPosition) or not self._is_comparable(other):
            return NotImplemented
        return self.lsn < other.lsn

    def __le__(self, other: object) -> bool:
        if not isinstance(other, WalPosition) or not self._is_comparable(other):
            return NotImplemented
        return self.lsn <= other.lsn

    def __gt__(self, other: object) -> bool:
        if not isinstance(other, WalPosition) or not self._is_comparable(other):
            return NotImplemented
        return self.lsn > other.lsn

    def __ge__(self, other: object) -> bool:
        if not isinstance(other, WalPosition) or not self._is_comparable(other):
            return NotImplemented
        return self.lsn >= other.lsn

    def _is_comparable(self, other: "WalPosition") -> bool:
        mine, theirs = self.system_identifier, other.system_identifier
        return mine == theirs and self.timeline == other.timeline


def _place(position: WalPosition) -> tuple[int, int]:
    return position.timeline, position.lsn


def parse_lsn(text: str) -> int:
    """``16/B374D848`` to bytes (manual, 8.20 "pg_lsn Type")."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


_PAGE_HEADER, _SEGMENT_HEADER = 24, 40
"""Bytes, on each page of the log, and on the first one of each segment."""


def format_lsn(lsn: int) -> str:
    """Bytes to ``16/B374D848``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def end_of_record(insert_lsn: int, offset: int, block_size: int) -> int:
    """Where the last record ends. ``offset``: of the insert LSN, in its segment.

    Where a record ends with its page, the insert LSN stands behind the next page's header already,
    while what is flushed and replayed stands before it, until there is a next record.
    """
    if offset == _SEGMENT_HEADER:
        return insert_lsn - _SEGMENT_HEADER
    return insert_lsn - _PAGE_HEADER if offset % block_size == _PAGE_HEADER else insert_lsn
