"""A manager's class, and what its tests have to know of its driver."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.testing.bench import Subject

__all__ = ("ManagerSubject",)


async def _nothing_to_commit(_: object) -> None:
    pass


@dataclass(frozen=True)
class ManagerSubject(Generic[PoolT, ConnT]):
    """The manager's class, and what its tests have to know of its driver."""

    manager: type[BasePoolManager[PoolT, ConnT]]
    driver: Subject[PoolT, ConnT]
    """The same as for `AdapterContract`."""
    errors: tuple[type[Exception], ...]
    """What the driver raises where a connection broke, or is refused."""
    commit: Callable[[ConnT], Awaitable[object]] = _nothing_to_commit
    """Commits what `Subject.execute` did, where that does not do it."""
    scheme: str = "postgresql"
    """Of the DSNs."""
    acquire_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the driver's acquire takes, if anything."""
    release_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the driver's release takes, if anything."""
    noise: tuple[str, ...] = ()
    """Words of what the driver itself may tell the event loop's exception handler, or stderr."""
