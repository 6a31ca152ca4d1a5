"""What the core asks of asyncpg."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

import asyncpg

from pyscopg2.core.adapter.asyncpg.arguments import PoolArguments
from pyscopg2.core.adapter.asyncpg.pools import AsyncpgPools

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncpg import Pool, Record
    from asyncpg.pool import PoolAcquireContext, PoolConnectionProxy

    from pyscopg2.core.dsn import Target

    _Pools = AsyncpgPools[Pool[Record], PoolConnectionProxy[Record]]
else:
    _Pools = AsyncpgPools

_HAS_FLOOR = "init_size" in inspect.signature(asyncpg.create_pool).parameters
"""``min_size`` connections stay, however long they are idle: so since asyncpg 0.32."""


class AsyncpgAdapter(_Pools):
    """`pyscopg2.core.adapter.Adapter` over asyncpg's public API."""

    def __init__(self) -> None:
        arguments = PoolArguments("asyncpg", asyncpg.create_pool, asyncpg.connect)
        super().__init__(asyncpg, asyncpg.create_pool, asyncpg.Connection, arguments)

    def pool_arguments(self, target: Target, options: dict[str, Any]) -> dict[str, Any]:
        made = super().pool_arguments(target, options)
        if _HAS_FLOOR and made["min_size"] == made["max_size"]:
            # No connection is ever above the floor, so that no sound one is closed for being idle:
            # but asyncpg sets a timer for it at each release, and cancels it at each acquire.
            made.setdefault("max_inactive_connection_lifetime", 0)
        return made

    # asyncpg's own: a function between would cost every acquire.
    acquire_from_pool = staticmethod(
        cast("Callable[..., PoolAcquireContext[Record]]", asyncpg.Pool.acquire)
    )
