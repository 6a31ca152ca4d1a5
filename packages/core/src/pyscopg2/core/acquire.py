"""What `acquire` returns, and how it comes by its connection.

Everything that an acquire touches costs it: each function between the user and the driver, and
above all each coroutine. Hence one coroutine on the way in and one on the way out.
"""

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Generator
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.core.alarm import Alarm
from pyscopg2.core.checkout import ENDED, NEW, OUT, Checkout, Checkouts
from pyscopg2.core.deadline import Interrupted, Steps, within
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.faults import is_misuse, is_suspicious
from pyscopg2.core.places import PATIENCE, RETRY_GAP
from pyscopg2.core.queue import Queue
from pyscopg2.core.spell import Spell
from pyscopg2.core.watchdog import NOT_WAITING

_RESOLUTION = time.get_clock_info("monotonic").resolution
"""Seconds by which the event loop may call a timer early."""


class AcquireContext(Checkout[PoolT, ConnT]):
    """A connection to come: nothing happens before it is awaited or entered, once.

    ``await`` gives the connection, which has to be given to `release` later. ``async with`` gives
    it for the block, ends the block as the driver's own pool does, and releases it in any case.
    The errors are those of `BasePoolManager.acquire`.
    """

    __slots__ = ("_checkouts", "_kwargs", "_queue", "_timeout")

    def __init__(
        self,
        checkouts: Checkouts[PoolT, ConnT],
        queue: Queue[PoolT],
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

    # Taking

    def __await__(self) -> Generator[Any, Any, ConnT]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> ConnT:
        """A connection for the request within its timeout, all work included.

        `AcquireTimeoutError` after that; the error given to `Checkouts.close` where the manager
        closes. Misuse of the driver (an unknown argument) raises the driver's own error at once.
        Every other failure of a host is tried elsewhere, or there again after its next good check.
        `RuntimeError`: this acquire has been used before.
        """
        if self.stage is not NEW:
            raise RuntimeError("this acquire was awaited or entered before: call acquire() again")
        self.stage = OUT
        checkouts = self._checkouts
        loop = asyncio.get_running_loop()
        if loop is not checkouts.loop:
            checkouts.start()
        places = checkouts.places
        queue = self._queue
        # Both are set when there is something to wait for: nothing was awaited until then.
        ticket: int | None = None
        when = 0.0
        failure: Exception | None = None
        while True:
            spell = places.take(queue)
            if spell is None:
                line = places.line
                if ticket is None:
                    ticket = next(line.tickets)
                    when = loop.time() + self._timeout
                    waiter = line.join(queue, ticket, when)
                else:
                    waiter = line.rejoin(queue, ticket, when)
                try:
                    spell = await waiter
                except BaseException:
                    places.leave(queue, waiter)
                    raise
                if spell is None:
                    self._give_up(failure)
                if spell is not queue.sole and spell not in places.candidates(queue):
                    # The host may not serve this any more: it was lost in this very turn, say.
                    places.free(spell)
                    checkouts.raise_if_closed()
                    continue
            try:
                kwargs = self._kwargs
                acquiring = (
                    checkouts.adapter.acquire_from_pool(spell.pool, **kwargs)
                    if kwargs
                    else checkouts.adapter.acquire_from_pool(spell.pool)
                )
                steps = acquiring.__await__()
                try:
                    pending = next(steps)
                except StopIteration as stop:
                    connection: ConnT = stop.value
                else:
                    if ticket is None:
                        # The place may be lost, but not the turn.
                        ticket = next(places.line.tickets)
                        when = loop.time() + self._timeout
                    connection = await self._connect(spell, steps, pending, when)
            except Interrupted:
                places.free(spell)
            except Exception as exc:
                if is_misuse(exc):
                    places.free(spell)
                    raise
                failure = exc
                places.suspend(spell)
                places.free(spell)
            except BaseException:
                places.free(spell)
                raise
            else:
                if spell.limit != spell.size:
                    places.trust(spell)
                self.connection = connection
                self.spell = spell
                checkouts.out[id(connection)] = self
                return connection
            checkouts.raise_if_closed()
            if ticket is None:
                ticket = next(places.line.tickets)
                when = loop.time() + self._timeout
            elif loop.time() + _RESOLUTION >= when:
                self._give_up(failure)

    async def _connect(
        self, spell: Spell[PoolT], steps: Steps[ConnT], pending: Any, when: float
    ) -> ConnT:
        """The rest of an acquire that the driver could not finish at once."""
        checkouts = self._checkouts
        places = checkouts.places
        loop = asyncio.get_running_loop()
        scope = asyncio.timeout_at(when)
        scopes = spell.scopes.setdefault(self._queue.request, {})
        scopes[scope] = None
        suspicion = loop.call_later(PATIENCE, checkouts.suspect, spell.address)
        # The host's checks may be well, over the connection that is open, while connects hang.
        patience = max(RETRY_GAP, min(checkouts.refresh_timeout, (when - loop.time()) / 2))
        doubt = Alarm(loop, patience, partial(self._doubt, spell, scope))
        try:
            leave = partial(checkouts.leave_to_itself, spell)
            connection = await within(scope, steps, pending, leave)
            places.prove(spell)
        finally:
            del scopes[scope]
            suspicion.cancel()
            doubt.cancel()
        if spell not in places.candidates(self._queue):
            # The host may not serve this any more: its role changed meanwhile, say.
            checkouts.return_later(connection, spell)
            raise Interrupted
        return connection

    def _doubt(self, spell: Spell[PoolT], scope: asyncio.Timeout) -> None:
        """A connect takes very long: who waits for it goes elsewhere, if there is a place, and no
        others come here but for what is open."""
        if self._checkouts.places.doubt(spell, self._queue) and not scope.expired():
            scope.reschedule(_now())

    def _give_up(self, failure: Exception | None) -> NoReturn:
        topology = self._checkouts.topology
        if failure is None:
            failure = next((host.error for host in topology if host.hopeless), None)
        raise AcquireTimeoutError(
            f"no connection to {self._queue.request} within the deadline: {topology}"
        ) from failure

    # Giving back

    def __aexit__(
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
            try:
                ending = checkouts.adapter.end_block(self.connection, exc)
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
                checkouts.suspect(self.spell.address)
            # Somebody else may have given it back meanwhile: their release is watched still.
            if self.stage is OUT or self.stage is ENDED:
                try:
                    await checkouts.release(self, {})
                except Exception:
                    # An error of the block, its cancellation above all, is not hidden by this one.
                    if exc is None:
                        raise


async def _fail(error: BaseException) -> None:
    raise error


def _now() -> float:
    return asyncio.get_running_loop().time()
