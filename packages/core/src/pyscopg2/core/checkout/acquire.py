"""How a request comes by its connection, and gives it back.

Everything that an acquire touches costs it: each function between the user and the driver, and
above all each coroutine. Hence one coroutine on the way in and one on the way out.
"""

import asyncio
import sys
import time
import warnings
from asyncio import current_task
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Generic, NoReturn
from weakref import ref

from pyscopg2.core.adapter.protocol import ConnT, HookError, PoolT
from pyscopg2.core.adapter.stepping import Interrupted, Steps, resume, within
from pyscopg2.core.checkout.bound import Bound
from pyscopg2.core.checkout.checkout import BACK, ENDED, NEW, OBSERVED, OUT, Checkout
from pyscopg2.core.checkout.checkouts import Checkouts
from pyscopg2.core.checkout.connect_trial import RETRY_GAP
from pyscopg2.core.checkout.context import AcquireContext
from pyscopg2.core.checkout.explanation import Failed, Tried, cause_of, explain
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.slots import PATIENCE
from pyscopg2.core.checkout.wait_queue import WaitQueue
from pyscopg2.core.diagnosis.error_class import is_misuse, is_suspicious
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.statistics.observer import Observers
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.timing.alarm import Alarm
from pyscopg2.core.timing.watchdog import NOT_WAITING

_RESOLUTION = max(0.001, time.get_clock_info("monotonic").resolution)
"""Seconds by which an event loop may call a timer early: uvloop rounds to whole milliseconds."""


class Acquire(AcquireContext[ConnT], Checkout[PoolT, ConnT], Generic[PoolT, ConnT]):
    """One acquire. It is the record of its checkout, too: a second object would cost each."""

    __slots__ = ("_checkouts", "_kwargs", "_queue", "_timeout")

    bound: Bound | None = None
    """Of a `BoundedAcquire`, a slot. Of the others, the class's: it costs them nothing to set."""

    def __init__(
        self,
        checkouts: Checkouts[PoolT, ConnT],
        queue: WaitQueue[PoolT],
        timeout: float,
        kwargs: dict[str, Any],
    ) -> None:
        # What `Checkout` does, once more: a call costs every acquire.
        self.stage = NEW
        self.ticks = NOT_WAITING
        self._checkouts = checkouts
        self._queue = queue
        self._timeout = timeout
        self._kwargs = kwargs

    if sys.flags.dev_mode:

        def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
            """As Python warns of its own coroutines. In its development mode alone, where time is
            no matter: a finalizer costs each acquire."""
            if self.stage is NEW:
                text = "acquire() was never awaited or entered"
                _warn(text, RuntimeWarning, stacklevel=2, source=self)

    def close(self) -> None:
        if self.stage is NEW:
            self.stage = BACK

    # Taking

    def __await__(self) -> Generator[Any, Any, ConnT]:
        if self._checkouts.returns.tells:
            task = current_task(self._checkouts.loop)
            self.owner = None if task is None else ref(task)
        return self._take().__await__()

    async def _take(self) -> ConnT:
        """A connection for the request within its timeout, all work included.

        `AcquireTimeoutError` after that; the error given to `Checkouts.close` where the manager
        closes. Every try asks for a slot, and ends in one of these ways:

        1. No slot is free: wait for one. Where only its patience is over, it asks again.
        2. The slot came, but its host may not serve this any more: give it back, and try again.
        3. The driver has a connection: done.
        4. It took too long, its host was lost meanwhile, or is not proven to be fresh enough any
           more (`Interrupted`): try again, elsewhere.
        5. A hook of the user's failed (`HookError`), or the driver was misused (an unknown
           argument): no other host would help; the user gets that error.
        6. The connect failed: the host is on trial; try again, elsewhere, or there once its next
           check is good.
        7. The user's task was cancelled.
        8. The choice or the wait failed: the policy raised, the pool was retired, the position is
           of another system, the manager closes. That error is raised.

        Out of time, where it would try again, the acquire gives up. In all of them but 3 the slot
        of this acquire is free again; what a driver leaves behind when it is interrupted keeps one
        of its own. `RuntimeError`: this acquire has been used before.
        """
        checkouts = self._checkouts
        if self.stage is not NEW:
            if self.stage is not OBSERVED:
                text = "this acquire was awaited or entered before: call acquire() again"
                raise RuntimeError(text)
        elif checkouts.observers is not None:
            self.stage = OBSERVED
            return await self._take_observed(checkouts.observers)
        self.stage = OUT
        loop = asyncio.get_running_loop()
        if loop is not checkouts.loop:
            checkouts.start()
        slots = checkouts.slots
        queue = self._queue
        bound = self.bound
        # Both are set when there is something to wait for: nothing was awaited until then.
        ticket: int | None = None
        when = 0.0
        tried: Tried | None = None
        while True:
            host_pool = slots.take(queue) if bound is None else self._take_fresh(bound)
            if host_pool is None:
                if ticket is None:
                    ticket = next(slots.wait_queues.tickets)
                    when = loop.time() + self._timeout
                    waiter = slots.join(queue, ticket, self._until(when), bound)
                else:
                    waiter = slots.rejoin(queue, ticket, self._until(when), bound)
                try:
                    host_pool = await waiter
                except BaseException:
                    slots.leave(queue, waiter)
                    raise
                if host_pool is None:
                    if loop.time() + _RESOLUTION < when:
                        continue
                    self._give_up(tried, slots.wait_queues.crowd)
                if host_pool is not queue.sole and host_pool not in slots.candidates(queue):
                    # It was lost in this very turn, say.
                    slots.free(host_pool)
                    checkouts.raise_if_closed()
                    continue
            try:
                kwargs = self._kwargs
                acquiring = (
                    checkouts.adapter.acquire_from_pool(host_pool.pool, **kwargs)
                    if kwargs
                    else checkouts.adapter.acquire_from_pool(host_pool.pool)
                )
                steps = acquiring.__await__()
                try:
                    pending = next(steps)
                except StopIteration as stop:
                    connection: ConnT = stop.value
                else:
                    if ticket is None:
                        # The slot may be lost, but not the turn.
                        ticket = next(slots.wait_queues.tickets)
                        when = loop.time() + self._timeout
                    connection = await self._connect(host_pool, steps, pending, when)
                if bound is not None and not self._is_confirmed(host_pool, bound):
                    if ticket is None:
                        ticket = next(slots.wait_queues.tickets)
                        when = loop.time() + self._timeout
                    await self._confirm(host_pool, connection, when)
            except Interrupted:
                slots.free(host_pool)
                tried = _noted(tried, host_pool.address, None)
            except HookError as exc:
                slots.free(host_pool)
                hook_error = exc.__cause__ or exc
                break
            except Exception as exc:
                if is_misuse(exc):
                    slots.free(host_pool)
                    raise
                tried = _noted(tried, host_pool.address, exc)
                slots.connect_failed(host_pool, exc)
                slots.free(host_pool)
            except BaseException:
                slots.free(host_pool)
                raise
            else:
                if host_pool.limit != host_pool.size:
                    slots.acquired(host_pool)
                self.connection = connection
                self.host_pool = host_pool
                host_pool.tally.acquires += 1
                checkouts.out[id(connection)] = self
                return connection
            checkouts.raise_if_closed()
            if ticket is None:
                ticket = next(slots.wait_queues.tickets)
                when = loop.time() + self._timeout
            elif loop.time() + _RESOLUTION >= when:
                self._give_up(tried, slots.wait_queues.lengths())
        try:
            # Not where it was caught: the `HookError` would become its context.
            raise hook_error
        finally:
            del hook_error

    # Nothing between a block and its connection.
    __aenter__ = _take

    async def _take_observed(self, observers: Observers) -> ConnT:
        """`_take`, and tell of it. It is stepped by hand, which tells whether it waits."""
        began = stopwatch.clock()
        waited = False
        try:
            steps = self._take().__await__()
            try:
                pending = next(steps)
            except StopIteration as stop:
                connection: ConnT = stop.value
            else:
                waited = True
                connection = await resume(steps, pending)
        except BaseException as exc:
            observers.failed(stopwatch.clock() - began, exc)
            raise
        now = self.taken_at = stopwatch.clock()
        observers.acquired(self.host_pool.address, now - began, waited)
        return connection

    async def _connect(
        self, host_pool: HostPool[PoolT], steps: Steps[ConnT], pending: Any, when: float
    ) -> ConnT:
        """The rest of an acquire that the driver could not finish at once."""
        checkouts = self._checkouts
        slots = checkouts.slots
        loop = asyncio.get_running_loop()
        scope = asyncio.timeout_at(when)
        connecting = host_pool.connecting.setdefault(self._queue.request, {})
        connecting[scope] = None
        ask = checkouts.attention.check_now_and_then
        asking = loop.call_later(PATIENCE, ask, host_pool.address)
        # The host's checks may be well, over the connection that is open, while connects hang.
        patience = max(RETRY_GAP, min(checkouts.refresh_timeout, (when - loop.time()) / 2))
        slow = Alarm(loop, patience, partial(self._is_slow, host_pool, scope))
        try:
            leave = partial(checkouts.leave_to_itself, host_pool)
            began = stopwatch.clock()
            connection = await within(scope, steps, pending, leave)
            slots.connected(host_pool)
            if checkouts.observers is not None:
                checkouts.observers.connected(host_pool.address, stopwatch.clock() - began)
        finally:
            del connecting[scope]
            asking.cancel()
            slow.cancel()
        if host_pool not in slots.candidates(self._queue):
            # The host may not serve this any more: its role changed meanwhile, say.
            checkouts.return_later(connection, host_pool)
            raise Interrupted
        return connection

    def _take_fresh(self, bound: Bound) -> HostPool[PoolT] | None:
        """What `BoundedAcquire` takes: others have no bound."""
        raise NotImplementedError

    def _until(self, when: float) -> float:
        """Until when to wait for a slot, where all is over at ``when``: then it asks again."""
        return when

    def _is_confirmed(self, host_pool: HostPool[PoolT], bound: Bound) -> bool:
        """Whether what a `BoundedAcquire` got keeps its bound, and nobody has to be asked."""
        raise NotImplementedError

    async def _confirm(self, host_pool: HostPool[PoolT], connection: ConnT, when: float) -> None:
        """What a `BoundedAcquire` does otherwise."""
        raise NotImplementedError

    def _is_slow(self, host_pool: HostPool[PoolT], scope: asyncio.Timeout) -> None:
        """The connect takes very long: this acquire goes elsewhere, if there is a slot, and no
        others come here but for what is open."""
        elsewhere = self._checkouts.slots.connect_slow(host_pool, self._queue)
        if elsewhere and not scope.expired():
            scope.reschedule(_now())

    def _give_up(self, tried: Tried | None, waiting: Mapping[WaitQueue[PoolT], int]) -> NoReturn:
        checkouts = self._checkouts
        slots, topology = checkouts.slots, checkouts.topology
        failed = Failed(self._timeout, {} if tried is None else tried, waiting)
        explanation = explain(
            self._queue, slots, topology, checkouts.targets, self.bound, failed=failed
        )
        cause = cause_of(self._queue.request, slots, topology, failed.tried)
        # The tracebacks of what was tried know the frame that knows them.
        failed.tried.clear()
        checkouts.timed_out(explanation, self._timeout)
        hosts = "; ".join(map(str, explanation.hosts))
        text = f"no connection to {explanation.asked} within {self._timeout:g} s: {hosts}"
        if explanation.advice:
            text = f"{text}. {explanation.advice}"
        try:
            raise AcquireTimeoutError(text) from cause
        finally:
            del cause

    # Giving back

    # No ``async def``, which would be one coroutine more; what is called is the same.
    def __aexit__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Coroutine[Any, Any, None]:
        """End an ``async with`` block as the driver does, and release its connection.

        Where a commit or rollback is unanswered for the refresh timeout, the connection is
        terminated, whereupon it fails. An error of the block, or of its end, that tells of a
        change on the host makes that suspected.
        """
        checkouts = self._checkouts
        ending = None
        stage = self.stage
        # Otherwise the block has given its connection back by itself: it may be another user's.
        if stage is OUT or stage is ENDED:
            if checkouts.end_block is not None:
                try:
                    ending = checkouts.end_block(self.connection, exc)
                except BaseException as error:
                    ending = _fail(error)
            if ending is None and exc is None:
                # The usual case: one coroutine, not two.
                return checkouts.release(self, {})
        elif stage is NEW:
            raise RuntimeError("this acquire has not been entered")
        return self._end_block(exc, ending)

    async def _end_block(self, exc: BaseException | None, ending: Awaitable[None] | None) -> None:
        checkouts = self._checkouts
        try:
            if ending is not None:
                await checkouts.bounded(self, ending)
        except BaseException as error:
            exc = error
            raise
        finally:
            if exc is not None and is_suspicious(exc, checkouts.adapter.sqlstate):
                checkouts.attention.check_soon(self.host_pool.address)
            # Somebody else may have given it back meanwhile: their release is watched still.
            if self.stage is OUT or self.stage is ENDED:
                try:
                    await checkouts.release(self, {})
                except Exception:
                    # An error of the block, its cancellation above all, is not hidden by this one.
                    if exc is None:
                        raise


def _noted(tried: Tried | None, address: str, error: Exception | None) -> Tried:
    """With what came of one more connect. A host that took too long has said why before, or not."""
    tried = {} if tried is None else tried
    before = tried.pop(address, None)
    tried[address] = before if error is None else error
    return tried


class OwnedAcquire(Acquire[PoolT, ConnT]):
    """One that knows whose it is also where it is entered.

    Before anybody has given a connection back by `release` there is no need to know: so managers
    whose users only enter blocks never pay for it.
    """

    __slots__ = ()

    def __aenter__(self) -> Coroutine[Any, Any, ConnT]:
        task = current_task(self._checkouts.loop)
        self.owner = None if task is None else ref(task)
        return self._take()


async def _fail(error: BaseException) -> None:
    raise error


def _now() -> float:
    return asyncio.get_running_loop().time()
