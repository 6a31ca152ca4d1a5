"""The acquires of reads that want their replicas to be fresh."""

import asyncio
import math
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any, NoReturn

from pyscopg2.core.adapter.cutting import cut_first
from pyscopg2.core.adapter.protocol import ConnT, PoolT
from pyscopg2.core.adapter.stepping import Interrupted
from pyscopg2.core.causal import CausalSession
from pyscopg2.core.checkout.acquire import OwnedAcquire
from pyscopg2.core.checkout.bound import Bound
from pyscopg2.core.checkout.checkout import NEW
from pyscopg2.core.checkout.checkouts import Checkouts
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.wait_queue import BoundedQueue
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.timing.alarm import Alarm
from pyscopg2.core.timing.watchdog import NOT_WAITING
from pyscopg2.core.topology.role_query import RICH_QUERY, Answer, parse_rich


class BoundedAcquire(OwnedAcquire[PoolT, ConnT]):
    """One that is served only by a host that is proven to keep its bound."""

    __slots__ = ("_reads", "bound")

    def __init__(
        self,
        checkouts: Checkouts[PoolT, ConnT],
        queue: BoundedQueue[PoolT],
        timeout: float,
        kwargs: dict[str, Any],
        bound: Bound,
    ) -> None:
        # What the base classes do, once more: a call costs every acquire.
        self.stage = NEW
        self.ticks = NOT_WAITING
        self._checkouts = checkouts
        self._queue = self._reads = queue
        self._timeout = timeout
        self._kwargs = kwargs
        self.bound: Bound = bound  # pyright: ignore[reportIncompatibleVariableOverride]

    def _take_fresh(self, bound: Bound) -> HostPool[PoolT] | None:
        return self._checkouts.slots.take_fresh(self._reads, bound)

    def _until(self, when: float) -> float:
        """Until masters may serve, too, if that is sooner."""
        patience = self.bound.masters_at - stopwatch.clock()
        if patience <= 0:
            return when
        return min(when, asyncio.get_running_loop().time() + patience)

    def _is_confirmed(self, host_pool: HostPool[PoolT], bound: Bound) -> bool:
        """To connect may have taken long, or the host's server was lost in this very moment, and
        another one may have answered, or it itself with less."""
        reads = self._reads
        last = reads.last
        if last is not None and host_pool in last.heard and reads.recalled(bound) is not None:
            # The usual case: nothing was heard of any host since it was chosen.
            is_heard = last.heard[host_pool]
            if is_heard is None or is_heard():
                return True
        if not self._checkouts.slots.is_fresh(reads, bound, host_pool):
            return False
        last = reads.last
        return last is not None and host_pool in last.heard

    async def _confirm(self, host_pool: HostPool[PoolT], connection: ConnT, when: float) -> None:
        """`Interrupted` where the host keeps the bound no more. One whose address may lead to
        several servers is asked which of them this is, and what that has."""
        slots = self._checkouts.slots
        if not slots.is_fresh(self._reads, self.bound, host_pool):
            self._hand_back(host_pool, connection)
        await self._ask_there(self.bound, host_pool, connection, when)

    async def _ask_there(
        self, bound: Bound, host_pool: HostPool[PoolT], connection: ConnT, when: float
    ) -> None:
        checkouts = self._checkouts
        adapter = checkouts.adapter
        cut = partial(adapter.terminate_connection, connection)
        loop = asyncio.get_running_loop()
        patience = max(0.0, min(checkouts.refresh_timeout, when - loop.time()))
        alarm = Alarm(loop, patience, cut)
        try:
            text = await cut_first(adapter.fetch_scalar(connection, RICH_QUERY), cut)
        except BaseException:
            checkouts.return_later(connection, host_pool)
            raise
        finally:
            alarm.cancel()
        try:
            answer = parse_rich(text)
        except ValueError:
            # Changed by what the user has set up for connections: it tells nothing.
            answer = Answer(read_only=False)
        slots = checkouts.slots
        if host_pool not in slots.candidates(self._reads):
            self._hand_back(host_pool, connection)
        if not slots.is_fresh_there(bound, host_pool, answer):
            self._hand_back(host_pool, connection)

    def _hand_back(self, host_pool: HostPool[PoolT], connection: ConnT) -> NoReturn:
        self._checkouts.return_later(connection, host_pool)
        raise Interrupted


class LateBoundAcquire(BoundedAcquire[PoolT, ConnT]):
    """One whose bound is known from when it is awaited or entered: what its session has written
    until then counts, and so does the time."""

    __slots__ = ("_patience", "_session")

    def __init__(
        self,
        checkouts: Checkouts[PoolT, ConnT],
        queue: BoundedQueue[PoolT],
        timeout: float,
        kwargs: dict[str, Any],
        bound: Bound,
        patience: float,
        session: CausalSession | None,
    ) -> None:
        """``bound``: what was asked for by itself. ``patience``: seconds until masters may serve,
        too, where the request allows that at all."""
        super().__init__(checkouts, queue, timeout, kwargs, bound)
        self._patience = patience
        self._session = session

    def __await__(self) -> Generator[Any, Any, ConnT]:
        self._find_bound()
        return super().__await__()

    def __aenter__(self) -> Coroutine[Any, Any, ConnT]:
        self._find_bound()
        return super().__aenter__()

    def _find_bound(self) -> None:
        max_lag, after, *_ = self.bound
        is_explicit = after is not None
        since = -math.inf
        session = self._session
        if session is not None:
            since = session.since
            # Of the system that counts, or that the user names. Where nothing was written there, of
            # another one: it may count by the time that there is a host.
            known = self._checkouts.topology.system
            written = session.position_in(known if after is None else after.system_identifier)
            if written is None and after is None:
                written = session.position
            if written is not None:
                after = written.merge(after)
        masters_at = stopwatch.clock() + self._patience if self._patience else -math.inf
        self.bound = Bound(max_lag, after, since, masters_at, is_explicit)
