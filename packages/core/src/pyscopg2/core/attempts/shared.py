"""What all attempts of one manager share."""

from collections.abc import Collection
from typing import Generic, Protocol

from pyscopg2.core.adapter.protocol import Adapter, ConnT, PoolT
from pyscopg2.core.attempts.budget import Budget
from pyscopg2.core.checkout.context import AcquireContext, ConnT_co


class Acquires(Protocol[ConnT_co]):
    """Makes an acquire of what an attempt wants."""

    def __call__(self, *, timeout: float) -> AcquireContext[ConnT_co]: ...


class Shared(Generic[PoolT, ConnT]):
    """One for each manager."""

    __slots__ = ("adapter", "budget", "secrets", "tells_evidence")

    def __init__(self, adapter: Adapter[PoolT, ConnT], secrets: Collection[str]) -> None:
        """``secrets``: what no message may show."""
        self.adapter = adapter
        self.budget = Budget()
        self.secrets = secrets
        self.tells_evidence: bool | None = None
        """Whether the servers answer the evidence query; None: not asked yet. It is tried outside
        of a transaction once, since a refusal would cost the transaction."""
