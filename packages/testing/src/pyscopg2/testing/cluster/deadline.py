"""How long a verb of a cluster may take."""

import time

from pyscopg2.testing.cluster.node import Node
from pyscopg2.testing.postgres import ClusterError

__all__ = ("PAUSE", "Deadline")

PAUSE = 0.01
"""Seconds between two looks."""


class Deadline:
    """A moment that all the steps of a verb share."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._at = time.monotonic() + timeout

    @property
    def left(self) -> float:
        """Seconds, at least 0."""
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.left == 0

    def sooner(self, timeout: float) -> "Deadline":
        return Deadline(min(timeout, self.left))

    def pause(self, what: str, node: Node) -> None:
        """Sleep until the next look; `ClusterError` with `what` if there is no time for another."""
        if self.passed:
            raise ClusterError(f"{what} after {self.timeout:g} s\n{node.log_tail()}")
        time.sleep(PAUSE)
