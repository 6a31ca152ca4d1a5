"""An adapter that is wrong in one thing, and what that does to a test of the contract."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from tests.testing.right_adapters import Kept, Reserving, at_each_acquire

from pyscopg2.asyncpg import AsyncpgAdapter


@dataclass(frozen=True)
class Wrong:
    test: str
    fails: str
    """A pattern for the error's class and message."""
    case: dict[str, Any] = field(default_factory=dict[str, Any])
    """The test's own parameters."""
    base: type[AsyncpgAdapter] = AsyncpgAdapter
    transactions: dict[str, Callable[[Any], Any]] = field(default_factory=dict[str, Any])
    hooks: Callable[[Callable[[], None]], dict[str, Any]] = at_each_acquire
    verbs: dict[str, Callable[..., Any]] = field(default_factory=dict[str, Any])

    def __str__(self) -> str:
        return "-".join((self.test, *(f"{k}={v}" for k, v in self.case.items())))


def wrong(
    test: str,
    fails: str,
    case: dict[str, Any] | None = None,
    base: type[AsyncpgAdapter] = AsyncpgAdapter,
    transactions: dict[str, Callable[[Any], Any]] | None = None,
    hooks: Callable[[Callable[[], None]], dict[str, Any]] = at_each_acquire,
    **verbs: Any,
) -> Wrong:
    return Wrong(f"test_{test}", fails, case or {}, base, transactions or {}, hooks, verbs)


def keeps_wrongly(
    test: str, fails: str, case: dict[str, Any] | None = None, **methods: Callable[..., Any]
) -> Wrong:
    """Its reserved connections have these methods."""
    kept = type("WronglyKept", (Kept,), methods)
    return wrong(test, fails, case, Reserving, kept=kept)


async def nothing(self: Any, *_: Any, **__: Any) -> None: ...


def nothing_at_once(self: Any, *_: Any, **__: Any) -> None: ...


async def stubbornly(work: Any) -> Any:
    """As if nobody had cancelled it."""
    task = asyncio.ensure_future(work)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise


async def create_with_asyncpgs_own_reset(self: Any, target: Any, /, **options: Any) -> Any:
    return await asyncpg.create_pool(target.to_uri(), **options)


HANGS = "did not end|TimeoutError"

SOCKETS = "sockets are left open"

BACKENDS = "backends are left"

OUT = f"connections are out|{HANGS}"

LATE = ({"late": False}, {"late": True})

ONCE = ({"again": False, "late": False}, {"again": False, "late": True})

AGAIN = ({"again": True, "late": False}, {"again": True, "late": True})

FROZEN = ({"frozen": False}, {"frozen": True})


REFUSALS: tuple[dict[str, Any], ...] = (
    {"change": {"password": "wrong-s3cret"}, "sqlstate": "28P01"},
    {"change": {"dbname": "nowhere"}, "sqlstate": "3D000"},
)
