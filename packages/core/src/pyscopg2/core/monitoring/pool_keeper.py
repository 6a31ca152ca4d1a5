"""A host's driver pool: opened while the checks go on, forgotten with what they find."""

import asyncio
import contextvars
import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple

from pyscopg2.core.adapter.protocol import Adapter, PoolT
from pyscopg2.core.dsn.target import Target
from pyscopg2.core.monitoring.attention import CONNECT_GAP, LONGEST_GAP
from pyscopg2.core.monitoring.bounds import Bounds
from pyscopg2.core.timing.attempt import FailedError, attempt


class Sized(NamedTuple, Generic[PoolT]):
    """A pool that is open, and how large it is."""

    pool: PoolT
    size: int | None
    """The most connections that it ever holds; None where it has no limit."""


Opened = tuple[Sized[PoolT] | None, BaseException | None]
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
        self._sized: Sized[PoolT] | None = None
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
        return self._sized is None and self._opening is None

    @property
    def pool(self) -> PoolT | None:
        """The host's, open."""
        return None if self._sized is None else self._sized.pool

    @property
    def size(self) -> int | None:
        """Of the pool; None where it has no limit, or there is none."""
        return None if self._sized is None else self._sized.size

    def adopt(self, pool: PoolT) -> None:
        """Keep one that is open already. Raises what the adapter does."""
        if pool is not self.pool:
            self._sized = self._measured(pool)
            self.has_served = False

    def let_go(self) -> None:
        """Of the pool, which somebody else ends."""
        self._sized = None

    def forget(self) -> None:
        """The host has none any more. One that is being opened ends here."""
        self._sized = None
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
            sized, error = (None, None) if opening.cancelled() else opening.result()
            if opening is self._opening:
                self._opening = None
                self._sized, self.error = sized, error
                self.has_served = False
                opened()
            elif sized is not None:
                self._end(sized)

        opening.add_done_callback(end)

    async def _open(self) -> Opened[PoolT]:
        """The host answers its checks meanwhile, so that this may take its time."""
        seconds = 4 * self._bounds.opening(self._slow, LONGEST_POOL_OPENING / 4)
        late = TimeoutError(f"no pool within {seconds:g} s")
        try:
            sized = await attempt(self._create(), seconds, late, self._background, undo=self._end)
        except FailedError as failed:
            self._slow = self._slow + 1 if failed.error is late else 0
            return None, failed.error
        self._slow = 0
        return sized, None

    async def _create(self) -> Sized[PoolT]:
        pool = await self._adapter.create_pool(self._target, **self._options)
        try:
            return self._measured(pool)
        except BaseException:
            self._background.spawn(self._terminate(pool))
            raise

    def _measured(self, pool: PoolT) -> Sized[PoolT]:
        """Here, and not where it is published: an adapter that raises is the fault of this check,
        and the pool is nobody's yet."""
        size = self._adapter.get_pool_maxsize(pool)
        # Adapters without a type checker.
        if not isinstance(size, int | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"get_pool_maxsize() must be a whole number or None, not {size!r}")
        return Sized(pool, size)

    def _end(self, sized: Sized[PoolT]) -> None:
        """Of no use any more, and nobody has heard of it."""
        self._background.spawn(self._terminate(sized.pool))

    async def _terminate(self, pool: PoolT) -> None:
        async with asyncio.timeout(self._bounds.refresh_timeout):
            await self._adapter.terminate_pool(pool)
