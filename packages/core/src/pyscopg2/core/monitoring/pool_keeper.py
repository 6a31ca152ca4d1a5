"""A host's driver pool: opened while the checks go on, forgotten with what they find."""

import asyncio
import contextvars
import math
from collections.abc import Callable, Mapping
from typing import Any, Generic

from pyscopg2.core.adapter.protocol import Adapter, PoolT
from pyscopg2.core.dsn.target import Target
from pyscopg2.core.monitoring.attention import CONNECT_GAP, LONGEST_GAP
from pyscopg2.core.monitoring.bounds import Bounds
from pyscopg2.core.timing.attempt import FailedError, attempt

Opened = tuple[PoolT | None, BaseException | None]
"""A pool, or why there is none."""

LONGEST_POOL_OPENING = 30.0
"""Seconds that a pool is given at the most, which may open its connections one after another."""


class PoolKeeper(Generic[PoolT]):
    """Opens the pool. Once the store has it, the checkouts end it."""

    def __init__(
        self,
        target: Target,
        adapter: Adapter[PoolT, Any],
        options: Mapping[str, Any],
        bounds: Bounds,
    ) -> None:
        self._target = target
        self._adapter = adapter
        self._options = options
        self._bounds = bounds
        self._background = bounds.background
        self.pool: PoolT | None = None
        """The host's, open."""
        self.error: BaseException | None = None
        """Why the host has no pool, though it answers."""
        self.has_served = False
        """Whether the pool has been in service."""
        self._opening: asyncio.Task[Opened[PoolT]] | None = None
        self._began_at = -math.inf
        """When a pool was last begun to be opened."""
        self._slow = 0
        """How many in a row have not opened in their time."""

    @property
    def is_idle(self) -> bool:
        """There is no pool, and none is being opened."""
        return self.pool is None and self._opening is None

    @property
    def size(self) -> int:
        """Of the pool; 0 where it has no limit."""
        return 0 if self.pool is None else self._adapter.get_pool_maxsize(self.pool) or 0

    def adopt(self, pool: PoolT) -> None:
        """Keep one that is open already."""
        if pool is not self.pool:
            self.pool = pool
            self.has_served = False

    def forget(self) -> None:
        """The host has none any more. One that is being opened ends here."""
        self.pool = None
        self.error = None
        self.stop_opening()

    def stop_opening(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
            self._background.adopt(opening)

    def may_try(self, failures: int, is_role_missing: bool) -> bool:
        """Whether the last try that failed is so long ago that another may follow. ``failures``:
        how often in a row in a way that waiting does not heal."""
        pause = LONGEST_GAP if failures > 1 else CONNECT_GAP
        if is_role_missing:
            pause = min(pause, 1.0)
        now = asyncio.get_running_loop().time()
        return self.error is None or now >= self._began_at + pause

    def begin(self, opened: Callable[[], None]) -> None:
        """Begin to open one; ``opened`` is called where that has ended: there is a `pool` then, or
        an `error`."""
        loop = asyncio.get_running_loop()
        self._began_at = loop.time()
        # In a context of its own, and not in that of the checks: what is set there, that they make
        # no traces, say, is not for users' connections.
        context = contextvars.Context()
        opening = self._opening = loop.create_task(self._open(), context=context)

        def end(_: object) -> None:
            pool, error = (None, None) if opening.cancelled() else opening.result()
            if opening is self._opening:
                self._opening = None
                self.pool, self.error = pool, error
                self.has_served = False
                opened()
            elif pool is not None:
                self._end(pool)

        opening.add_done_callback(end)

    async def _open(self) -> Opened[PoolT]:
        """The host answers its checks meanwhile, so that this may take its time."""
        seconds = 4 * self._bounds.opening(self._slow, LONGEST_POOL_OPENING / 4)
        late = TimeoutError(f"no pool within {seconds:g} s")
        try:
            pool = await attempt(self._create(), seconds, late, self._background, undo=self._end)
        except FailedError as failed:
            self._slow = self._slow + 1 if failed.error is late else 0
            return None, failed.error
        self._slow = 0
        return pool, None

    async def _create(self) -> PoolT:
        return await self._adapter.create_pool(self._target, **self._options)

    def _end(self, pool: PoolT) -> None:
        """Of no use any more, and nobody has heard of it."""
        self._background.spawn(self._terminate(pool))

    async def _terminate(self, pool: PoolT) -> None:
        async with asyncio.timeout(self._bounds.refresh_timeout):
            await self._adapter.terminate_pool(pool)
