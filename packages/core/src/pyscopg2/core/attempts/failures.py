"""What went wrong in attempts that were repeated: the first error, and a line for each other."""

from collections import deque
from collections.abc import Collection

from pyscopg2.core.diagnosis.redaction import describe

_KEPT = 20
"""Lines: who repeats for an hour wants to know how it began, and how it ends."""


class Failures:
    """The errors of one `async for`."""

    def __init__(self, secrets: Collection[str]) -> None:
        """``secrets``: what no line may show."""
        self.first: Exception | None = None
        self._secrets = secrets
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._count = 0

    def add(self, exc: Exception, number: int, seconds: float) -> None:
        """Attempt ``number`` ended with this, so long after the first one began."""
        if self.first is None:
            self.first = exc
        elif exc is not self.first:
            self._count += 1
            said = describe(exc, self._secrets)
            self._lines.append(f"attempt {number}, after {seconds:.3f} s: {said}")

    def told(self) -> Exception | None:
        """The first error, with the later ones as notes; None where there is none. It is not kept:
        its traceback knows the block of its user, which knows who keeps it."""
        first, self.first = self.first, None
        if first is not None:
            if more := self._count - len(self._lines):
                first.add_note(f"{more} more errors")
            for line in self._lines:
                first.add_note(line)
        return first

    def forget(self) -> None:
        """Nobody asks any more."""
        self.first = None
