"""One host's watch: check, observe, publish."""

import asyncio
import logging
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, cast

from pyscopg2.core.adapter import Adapter, ConnT, PoolT
from pyscopg2.core.alarm import Alarm
from pyscopg2.core.background import Background
from pyscopg2.core.dsn import Target
from pyscopg2.core.faults import describe, is_hopeless
from pyscopg2.core.probe import Answer, ask
from pyscopg2.core.stopwatch import Stopwatch
from pyscopg2.core.store import Store
from pyscopg2.core.topology import Observation, Role

logger = logging.getLogger("pyscopg2")

GAP = 0.05
"""Seconds between two checks, at least, on a connection that is open."""

CONNECT_GAP = 0.2
"""The same where the check has to connect: each connect costs the server a fork."""

LEAST_ANEW = 1.0
"""Seconds between two pools that are opened on suspicion alone, at least."""

OVERDUE = 10
"""A check that takes so many times the host's usual time is far beyond it."""

SLOWEST = 10.0
"""Seconds between the checks of a host whose error waiting does not heal, at most."""

JITTER = 0.2
"""Checks come up to this part later than their time, so that many clients do not beat as one."""


@dataclass(frozen=True, slots=True)
class Reserved(Generic[PoolT, ConnT]):
    """The connection that the monitor keeps for itself, and the pool it is from."""

    pool: PoolT
    connection: ConnT


class Monitor(Generic[PoolT, ConnT]):
    """Checks one host for as long as its task runs. Every check publishes, whatever it found.

    A spell begins with the pool that a check opens, and ends with the check that fails on it, or
    that finds another server or a lesser role behind the address: the observation carries the
    pool, or none, and whoever follows the store acts on that.
    """

    def __init__(
        self,
        target: Target,
        adapter: Adapter[PoolT, ConnT],
        options: Mapping[str, Any],
        store: Store,
        background: Background,
        *,
        hurried: Callable[[], bool],
        overdue: Callable[[str], None],
        retired: Callable[[str], Iterable[PoolT]],
        refresh_delay: float,
        refresh_timeout: float,
        stopwatch_window_size: int,
    ) -> None:
        """``hurried`` tells whether somebody waits for a role that nobody has. ``overdue`` is told
        the address when a check takes far longer than usual. ``retired`` tells the address's pools
        that wait for their last checkouts."""
        self._target = target
        self._address = target.address
        self._adapter = adapter
        self._options = options
        self._store = store
        self._background = background
        self._hurried = hurried
        self._overdue = overdue
        self._retired = retired
        self._refresh_delay = refresh_delay
        self._refresh_timeout = refresh_timeout
        self._stopwatch = Stopwatch(stopwatch_window_size)
        self._round_trip: float | None = None
        """What the last answer took, in seconds."""
        self._reserved: Reserved[PoolT, ConnT] | None = None
        self._answer: Answer | None = None
        """Of this spell."""
        self._served = False
        """Whether this spell's pool has been in service."""
        self._reopened = False
        """Whether the reserved connection is another one than at the last answer."""
        self._failures = 0
        """Hopeless ones, in a row."""
        self._began = 0.0
        self._reopened_at = -math.inf
        """When the reserved connection had to be opened anew last, within a spell."""
        self._anew_at = 0.0
        """From when on `_connect_anew` is worth its connects, on the event loop's clock."""
        self._suspected = False
        self._rich = True
        """Whether the server of the reserved connection tells all, as far as is known."""
        self._stopping = False
        self._wake = asyncio.Event()

    def check_soon(self) -> None:
        """Something may have changed: check as soon as the gap between checks allows."""
        self._suspected = True
        self._wake.set()

    def look(self) -> None:
        """Check soon where the reserved connection broke meanwhile, as far as the driver knows."""
        reserved = self._reserved
        if reserved is not None and self._adapter.is_connection_closed(reserved.connection):
            self.check_soon()

    def hurry(self) -> None:
        """Have `hurried` asked again."""
        self._wake.set()

    async def run(self) -> None:
        """Check for ever. Cancelled without a `stop`, the event loop is ending and nobody else is
        left to end the pool."""
        try:
            while True:
                await self._check()
                await self._pause()
        finally:
            if self._stopping:
                self._drop_reserved()
            else:
                pool = cast("PoolT | None", self._store.topology[self._address].pool)
                if self._reserved is not None:
                    self._adapter.terminate_connection(self._reserved.connection)
                    pool = self._reserved.pool
                for each in (pool, *self._retired(self._address)):
                    if each is not None:
                        await self._adapter.terminate_pool(each)

    def stop(self) -> None:
        """Said before `run` is cancelled, where the manager closes and will end the pool."""
        self._stopping = True

    # One check

    async def _check(self) -> None:
        self._suspected = False
        self._began = asyncio.get_running_loop().time()
        serial = self._store.next_serial()
        self._reopened = False
        try:
            answer = await self._ask_in_time()
        except Exception as exc:
            self._drop_reserved()
            self._answer = None
            hopeless = is_hopeless(exc, self._adapter.sqlstate)
            self._failures = self._failures + 1 if hopeless else 0
            self._publish(serial, error=exc, hopeless=hopeless)
            return
        self._failures = 0
        if self._answer is not None and self._ends_spell(self._answer, answer):
            # What users hold there belongs to the past. The host serves nobody until a new spell
            # has begun, on a connection of its own, to wherever the address leads now.
            self._drop_reserved()
            self._answer = None
            self._publish(serial, answer=answer)
            await self._check()
        else:
            self._answer = answer
            self._publish(serial, answer=answer)
            if self._may_lead_elsewhere(answer):
                await self._connect_anew()

    def _may_lead_elsewhere(self, answer: Answer) -> bool:
        """Whether it is time to see where the address leads now: somebody waits, there is no
        master, and this host is a standby over a connection from before.

        A name or a service that moves to the new master leaves the flows that there are alone.
        """
        if answer.writable or not self._hurried() or self._store.topology.masters:
            return False
        return asyncio.get_running_loop().time() >= self._anew_at

    async def _connect_anew(self) -> None:
        """Begin a new spell if a new pool finds a master here; else nothing has happened."""
        attempt = asyncio.get_running_loop().create_task(self._find_master())
        try:
            await asyncio.wait({attempt}, timeout=self._refresh_timeout)
        finally:
            attempt.cancel()
            self._background.adopt(attempt)
            if self._reserved is not None:
                self._put_off(self._reserved.pool)

    def _put_off(self, pool: PoolT) -> None:
        """A pool may open as many connections as it has places: each is one more connect."""
        places = self._adapter.get_pool_maxsize(pool) or 0
        gap = min(max(LEAST_ANEW, CONNECT_GAP * places), SLOWEST)
        self._anew_at = asyncio.get_running_loop().time() + gap

    async def _find_master(self) -> None:
        serial = self._store.next_serial()
        pool = await self._adapter.create_pool(self._target, **self._options)
        try:
            _stop_if_given_up()
            connection = await self._adapter.acquire_from_pool(pool)
            try:
                answer = await ask(
                    partial(self._adapter.fetch_scalar, connection), self._adapter.sqlstate
                )
                _stop_if_given_up()
                if self._stopping:
                    # In this very turn, before the cancellation: nobody would end this pool.
                    raise asyncio.CancelledError
                if not answer.writable:
                    raise LookupError("a standby here, too")
            except BaseException:
                # The pool may have forgotten what is out of it.
                self._adapter.terminate_connection(connection)
                raise
        except BaseException:
            await self._adapter.terminate_pool(pool)
            raise
        # No await from here on: whoever follows finds the one spell, or the other.
        self._drop_reserved()
        self._reserved = Reserved(pool, connection)
        self._rich = answer.rich
        self._answer = answer
        self._served = False
        self._publish(serial, answer=answer)

    def _publish(
        self,
        serial: int,
        *,
        answer: Answer | None = None,
        error: Exception | None = None,
        hopeless: bool = False,
    ) -> None:
        self._store.publish(
            Observation(
                address=self._address,
                serial=serial,
                at=asyncio.get_running_loop().time(),
                answer=answer,
                error=error,
                reason="" if error is None else self._describe(error),
                hopeless=hopeless,
                response_time=self._stopwatch.median,
                round_trip=None if answer is None else self._round_trip,
                pool=None if self._reserved is None else self._reserved.pool,
            )
        )

        serving = self._store.topology[self._address].serving
        self._served = self._reserved is not None and (self._served or serving)

    def _ends_spell(self, before: Answer, now: Answer) -> bool:
        """Whether this is another server, or the same one demoted, or superseded since the pool
        was in service. A promotion ends no spell.

        Seen over a new connection, another role or timeline may be another server's, to which the
        address has moved: what else the pool has open stayed with the old one.
        """
        if before.writable and not now.writable:
            return True
        if len({before.system_identifier, now.system_identifier} - {None}) > 1:
            return True
        if self._reopened and (before.writable, before.timeline) != (now.writable, now.timeline):
            return True
        role = self._store.topology[self._address].role
        return self._served and role is Role.SUPERSEDED

    def _describe(self, exc: Exception) -> str:
        return describe(exc, self._target.secrets)

    async def _ask_in_time(self) -> Answer:
        """`TimeoutError` after the refresh timeout, whatever the driver does meanwhile."""
        loop = asyncio.get_running_loop()
        attempt = loop.create_task(self._attempt())
        over: asyncio.Future[None] = loop.create_future()

        def end(_: object = None) -> None:
            if not over.done():
                over.set_result(None)

        attempt.add_done_callback(end)
        alarm = Alarm(loop, self._refresh_timeout, end)
        usual = self._stopwatch.median or self._refresh_timeout
        first_alarm = Alarm(loop, max(GAP, OVERDUE * usual), partial(self._overdue, self._address))
        try:
            await over
        finally:
            alarm.cancel()
            first_alarm.cancel()
            if not attempt.done():
                # Terminate first: a driver may take long to agree to a cancellation.
                self._drop_reserved()
                attempt.cancel()
            self._background.adopt(attempt)
        if not attempt.done():
            raise TimeoutError(f"no answer within {self._refresh_timeout:g} s")
        if attempt.cancelled():
            raise ConnectionError("the driver cancelled the check")
        return attempt.result()

    async def _attempt(self) -> Answer:
        reserved = self._reserved
        if reserved is None:
            await self._open_spell()
        else:
            try:
                return await self._ask(reserved)
            except Exception as exc:
                # Maybe only this connection is broken: a new one tells.
                logger.debug("%s asked anew: %s", self._address, self._describe(exc))
                returning = self._drop_reserved()
                if returning is not None:
                    # Its place first: under full load the driver has no other for the next one,
                    # and need not wake who queues inside it.
                    await asyncio.wait({returning})
                self._reopened_at = asyncio.get_running_loop().time()
                await self._reserve(reserved.pool)
        if self._reserved is None:
            raise asyncio.CancelledError
        return await self._ask(self._reserved)

    async def _ask(self, reserved: Reserved[PoolT, ConnT]) -> Answer:
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer = await ask(
            partial(self._adapter.fetch_scalar, reserved.connection),
            self._adapter.sqlstate,
            rich=self._rich,
        )
        self._round_trip = loop.time() - began
        self._stopwatch.add(self._round_trip)
        self._rich = answer.rich
        return answer

    # The reserved connection

    async def _open_spell(self) -> None:
        pool = await self._adapter.create_pool(self._target, **self._options)
        try:
            await self._reserve(pool)
        except BaseException:
            await self._adapter.terminate_pool(pool)
            raise

    async def _reserve(self, pool: PoolT) -> None:
        _stop_if_given_up()
        connection = await self._adapter.acquire_from_pool(pool)
        try:
            _stop_if_given_up()
        except BaseException:
            # By now the monitor may have another connection, and the pool be retired.
            self._adapter.terminate_connection(connection)
            self._background.spawn(self._give_back(Reserved(pool, connection), True))
            raise
        self._rich = True
        self._reserved = Reserved(pool, connection)
        self._reopened = True
        self._put_off(pool)

    def _drop_reserved(self) -> asyncio.Task[None] | None:
        """Terminate it and give it back to its pool, without waiting for either; returns the task
        that gives it back.

        The end of a pool that was published is for those who follow the store; one that was not
        ends here.
        """
        reserved, self._reserved = self._reserved, None
        if reserved is None:
            return None
        self._adapter.terminate_connection(reserved.connection)
        published = self._store.topology[self._address].pool is reserved.pool
        return self._background.spawn(self._give_back(reserved, published))

    async def _give_back(self, reserved: Reserved[PoolT, ConnT], published: bool) -> None:
        try:
            async with asyncio.timeout(self._refresh_timeout):
                await self._adapter.release_to_pool(reserved.connection, reserved.pool)
        finally:
            if not published:
                async with asyncio.timeout(self._refresh_timeout):
                    await self._adapter.terminate_pool(reserved.pool)

    # Between two checks

    async def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        stretch = 1 + JITTER * random.random()
        while loop.time() < (until := self._began + self._delay() * stretch):
            self._wake.clear()
            timer = loop.call_at(until, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    def _delay(self) -> float:
        """Seconds from the last check's beginning to the next one's, before jitter."""
        delay = self._refresh_delay
        if self._failures:
            delay = max(delay, min(delay * 2 ** min(self._failures, 10), SLOWEST))
        if self._suspected or (not self._failures and self._hurried()):
            delay = min(delay, self._gap())
        return delay

    def _gap(self) -> float:
        """The same at the least: longer where the check has to connect."""
        if self._reserved is None:
            return CONNECT_GAP
        if self._adapter.is_connection_closed(self._reserved.connection):
            return max(GAP, self._reopened_at + CONNECT_GAP - self._began)
        return GAP


def _stop_if_given_up() -> None:
    """A driver that swallows a cancellation goes on where nobody waits for it any more."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
