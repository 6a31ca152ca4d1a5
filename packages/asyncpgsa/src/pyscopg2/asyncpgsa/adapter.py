"""What the core asks of asyncpgsa."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import asyncpg
from asyncpgsa import (  # pyright: ignore[reportMissingTypeStubs]
    create_pool,  # pyright: ignore[reportUnknownVariableType]
)
from asyncpgsa.connection import SAConnection  # pyright: ignore[reportMissingTypeStubs]

from pyscopg2.core.adapter.asyncpg.arguments import PoolArguments
from pyscopg2.core.adapter.asyncpg.pools import AsyncpgPools

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncpg import Pool, Record
    from asyncpg.pool import PoolConnectionProxy

    _Pools = AsyncpgPools[Pool[Record], PoolConnectionProxy[Record]]
else:
    _Pools = AsyncpgPools

_create_pool = cast("Callable[..., Any]", create_pool)
"""It makes a plain `asyncpg.Pool`, with connections that take SQLAlchemy's expressions."""


class AsyncpgsaAdapter(_Pools):
    """`pyscopg2.core.adapter.Adapter` over asyncpgsa's and asyncpg's public API."""

    def __init__(self) -> None:
        # Its own signature tells of no options: it hands on asyncpg's.
        own = frozenset({"dialect"})
        arguments = PoolArguments("asyncpgsa", asyncpg.create_pool, asyncpg.connect, own=own)
        super().__init__(asyncpg, _create_pool, SAConnection, arguments)

    def acquire_from_pool(
        self, pool: Pool[Record], /, **kwargs: Any
    ) -> Awaitable[PoolConnectionProxy[Record]]:
        return pool.acquire(**kwargs)
