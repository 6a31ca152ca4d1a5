"""What writers were told of each row, and whether the rows say the same."""

from collections import Counter
from dataclasses import dataclass, field

TABLE = "CREATE TABLE IF NOT EXISTS attempted_writes (writer int, number int)"
"""Without a key: a row that is written twice is to be found."""

ROWS = "SELECT writer, number, count(*) FROM attempted_writes GROUP BY writer, number"

Row = tuple[int, int]
"""The writer, and the number that it has given to the row."""


@dataclass
class Ledger:
    """By what a block's `async for` has ended with."""

    acknowledged: set[Row] = field(default_factory=set[Row])
    unknown: set[Row] = field(default_factory=set[Row])
    """`CommitUnknown`."""
    refused: dict[Row, str] = field(default_factory=dict[Row, str])
    """Any other error."""
    early: set[Row] = field(default_factory=set[Row])
    """`CommitUnknown`, though the block had not come to its end."""
    blocks: int = 0
    """That were begun, repeats among them."""
    longest: float = 0.0
    """Seconds from the first attempt to the acknowledgement."""

    @property
    def asked(self) -> int:
        return len(self.acknowledged) + len(self.unknown) + len(self.refused)


@dataclass(frozen=True)
class Verdict:
    """The ledger, compared with the rows that are there in the end."""

    twice: list[Row]
    missing: list[Row]
    """Acknowledged, and not there."""
    denied: list[Row]
    """There, though an error said that the block has failed."""
    unknown_written: int
    errors: "Counter[str]"

    @property
    def is_kept(self) -> bool:
        return not (self.twice or self.missing or self.denied or self.errors)


def compare(ledger: Ledger, rows: dict[Row, int]) -> Verdict:
    return Verdict(
        sorted(row for row, count in rows.items() if count > 1),
        sorted(ledger.acknowledged - rows.keys()),
        sorted(ledger.refused.keys() & rows.keys()),
        len(ledger.unknown & rows.keys()),
        Counter(ledger.refused.values()),
    )
