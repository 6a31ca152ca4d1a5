"""One host's watch: check, observe, publish."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, cast

from pyscopg2.core.adapter.protocol import Adapter, ConnT, PoolT
from pyscopg2.core.diagnosis import log
from pyscopg2.core.diagnosis.error_class import is_hopeless
from pyscopg2.core.dsn.target import Target
from pyscopg2.core.monitoring.attention import Attention
from pyscopg2.core.monitoring.bounds import Bounds
from pyscopg2.core.monitoring.complaints import Complaints
from pyscopg2.core.monitoring.held_connection import HeldConnection
from pyscopg2.core.monitoring.pool_keeper import PoolKeeper
from pyscopg2.core.monitoring.reserved import Reserve, Reserved
from pyscopg2.core.monitoring.route import Route
from pyscopg2.core.monitoring.schedule import Schedule
from pyscopg2.core.monitoring.scouting import Scouting
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.timing.attempt import FailedError
from pyscopg2.core.timing.background import Background
from pyscopg2.core.topology.host_state import SIDELINED, Observation, Role
from pyscopg2.core.topology.role_query import Answer
from pyscopg2.core.topology.store import Store


class Monitor(Generic[PoolT, ConnT]):
    """Checks one host for as long as its task runs. Every check publishes, whatever it found.

    A check asks over the reserved connection. A host that answers, and may serve, gets a driver
    pool, which opens while the checks go on. The pool ends with the check that fails, or that finds
    another server or a lesser role behind the address: the observation carries the pool, or none,
    and the checkouts, which follow the store, act on that.

    Nothing that the driver or the adapter raises ends the watch: a check that meets it has failed.
    """

    def __init__(
        self,
        target: Target,
        adapter: Adapter[PoolT, ConnT],
        options: Mapping[str, Any],
        store: Store,
        background: Background,
        attention: Attention,
        reserve: Reserve[PoolT],
        *,
        refresh_timeout: float,
        stopwatch_window_size: int,
    ) -> None:
        address = target.address
        self._address = address
        self._adapter = adapter
        self._store = store
        self._attention = attention
        self._complaints = Complaints(address, target.secrets)
        self._bounds = Bounds(address, store, background, refresh_timeout, stopwatch_window_size)
        self._keeper = PoolKeeper(target, adapter, options, self._bounds)
        self._held = HeldConnection(
            address,
            reserve,
            self._keeper,
            store,
            adapter.sqlstate,
            self._bounds,
            self._complaints,
        )
        self._route = Route(target, background)
        self._scouting = Scouting(target, store, attention, self._keeper, self._held)
        self._schedule = Schedule(
            address, store, attention, self._keeper, self._held, self._scouting
        )
        self._answer: Answer | None = None
        """The last one, since the last check that failed."""
        self._answered_at = 0.0
        self._asked_at = 0.0
        """When the question was sent, on `stopwatch.clock`, in seconds."""
        self._told_at = 0.0
        """When the answer had come, on the same clock."""
        self._is_heard: Callable[[], bool] | None = None
        """Whether the connection is open over which it came."""
        self._answered = 0
        """The number of the check that was answered so."""
        self._serial = 0
        """Of the check that began last: it may be under way still."""
        self._failures = 0
        """Hopeless ones, in a row."""
        self._stopping = False

    def look(self) -> None:
        """Check soon where the reserved connection broke meanwhile, as far as the driver knows."""
        if self._held.is_closed():
            self._attention.check_soon(self._address)

    async def run(self) -> None:
        """Check for ever. Cancelled without a `stop`, the event loop is ending: what is open is cut
        off then, and `end_pool` ends the pool."""
        try:
            while True:
                try:
                    await self._check()
                except (KeyboardInterrupt, GeneratorExit):
                    raise
                except BaseException as exc:
                    stopped = asyncio.current_task()
                    if stopped is not None and stopped.cancelling():
                        raise
                    self._complaints.say(exc)
                    self._fail(self._serial, exc)
                await self._schedule.pause(self._failures)
        finally:
            if self._stopping:
                # Its pool ends with all others.
                self._held.drop()
                self._keeper.forget()
            else:
                self._held.terminate()
                self._keeper.stop_opening()

    def stop(self) -> None:
        """Said before `run` is cancelled, where the manager closes and will end the pool. One that
        opens from now on is nobody's, and ends here."""
        self._stopping = True
        self._keeper.stop_opening()

    def ended(self, error: BaseException) -> None:
        """Said where `run` has ended though it should not have: the host serves nobody until it
        runs again."""
        self._fail(self._store.next_serial(), error)

    async def end_pool(self) -> None:
        """Terminate the host's pool, in the last moments of an event loop."""
        pool = self._held.pool
        if pool is None:
            pool = cast("PoolT | None", self._store.topology[self._address].pool)
        if pool is not None:
            await self._adapter.terminate_pool(pool)

    # One check

    async def _check(self) -> None:
        self._schedule.begin()
        serial = self._serial = self._store.next_serial()
        self._held.is_new = False
        try:
            answer = await self._ask()
        except FailedError as failed:
            self._fail(serial, failed.error)
            return
        before = self._answer
        self._note_answer(serial, answer)
        if before is not None and self._ends_pool(before, answer):
            # What users hold there belongs to the past. The host serves nobody until a new pool is
            # open, to wherever the address leads now.
            if not self._held.is_new or self._held.is_in_pool:
                self._held.drop()
                self._answer = None
            self._keeper.forget()
            self._publish(serial, answer=answer)
            if not self._held.is_open:
                # Over a new connection, at once.
                await self._check()
                return
        else:
            self._publish(serial, answer=answer)
        if before is not None and before.in_recovery and answer.writable and not self._held.is_new:
            self._scouting.promoted()
        self._keep_pool()
        pool_in_doubt = await self._scouting.is_pool_in_doubt(answer, serial)
        if self._scouting.consider(answer, pool_in_doubt):
            try:
                await self._send_scout(renew=pool_in_doubt)
            finally:
                self._scouting.sent()

    async def _ask(self) -> Answer:
        """Over the reserved connection, or over a new one where that fails. `FailedError`: with a
        `TimeoutError` where the host does not answer within the refresh timeout, whatever the
        driver does meanwhile."""
        if self._held.is_open:
            late = self._late()
            try:
                return await self._held.ask(late)
            except FailedError as failed:
                if failed.error is late or not isinstance(failed.error, Exception):
                    raise
                # Maybe only this connection is broken: a new one tells.
                error = self._complaints.describe(failed.error)
                log.say(logging.DEBUG, "%s asked anew: %s", self._address, error)
            returning = self._held.drop()
            if returning is not None:
                # Its slot first: under full load the driver has no other for the next one, and
                # need not wake an acquire that queues inside it.
                await asyncio.wait({returning})
            self._held.broke_at = asyncio.get_running_loop().time()
        await self._held.open()
        return await self._held.ask(self._late())

    def _late(self) -> TimeoutError:
        return TimeoutError(f"no answer within {self._bounds.refresh_timeout:g} s")

    def _ends_pool(self, before: Answer, now: Answer) -> bool:
        """Whether this is another server, or the same one demoted, or it may not serve any more
        since the pool was in service. A promotion ends no pool.

        Seen over a new connection, another role or timeline may be another server's, to which the
        address has moved: what else the pool has open stayed with the old one.
        """
        if before.writable and not now.writable:
            return True
        if _is_other_system(before, now):
            return True
        if self._held.is_new and _is_other(before, now):
            return True
        return self._keeper.has_served and self._role in SIDELINED

    def _note_answer(self, serial: int, answer: Answer) -> None:
        self._answer = answer
        self._answered = serial
        self._answered_at = asyncio.get_running_loop().time()
        self._asked_at = self._bounds.asked_at
        self._told_at = stopwatch.clock()
        self._is_heard = self._held.hearing()
        if self._held.is_new:
            self._route.reconsider()

    def _fail(self, serial: int, error: BaseException) -> None:
        """A check has failed."""
        self._held.drop()
        self._keeper.forget()
        self._answer = None
        self._note_failure(error)
        self._publish(serial, error=error)

    def _note_failure(self, error: BaseException) -> None:
        self._failures = self._failures + 1 if self._is_hopeless(error) else 0

    def _is_hopeless(self, error: BaseException) -> bool:
        return is_hopeless(error, self._adapter.sqlstate)

    def _publish(
        self, serial: int, *, answer: Answer | None = None, error: BaseException | None = None
    ) -> None:
        keeper = self._keeper
        if error is None:
            error = keeper.error
        if error is None:
            self._failures = 0
        now = asyncio.get_running_loop().time()
        self._store.publish(
            Observation(
                address=self._address,
                serial=serial,
                at=now if answer is None else self._answered_at,
                answer=answer,
                error=error,
                reason="" if error is None else self._complaints.describe(error),
                hopeless=error is not None and self._is_hopeless(error),
                response_time=self._bounds.response_time,
                round_trip=None if answer is None else self._bounds.round_trip,
                asked_at=self._asked_at,
                told_at=self._told_at,
                is_heard=self._is_heard,
                is_direct=answer is not None and self._route.is_direct(answer.address),
                pool=keeper.pool,
                pool_size=keeper.size,
            )
        )
        serving = self._store.topology[self._address].serving
        keeper.has_served = keeper.pool is not None and (keeper.has_served or serving)

    @property
    def _role(self) -> Role:
        return self._store.topology[self._address].role

    # The pool

    def _keep_pool(self) -> None:
        """Begin to open a pool where the host may serve and has none; or take it away."""
        keeper = self._keeper
        if self._held.is_in_pool:
            return
        if self._role in SIDELINED:
            if not keeper.is_idle:
                keeper.forget()
                self._publish(self._answered, answer=self._answer)
            return
        may_try = keeper.may_try(self._failures, self._attention.is_role_missing)
        if keeper.is_idle and self._held.is_open and may_try:
            keeper.begin(self._pool_opened)

    def _pool_opened(self) -> None:
        """Or it could not be. Called beside the checks: what is published is the last answer, under
        the number of its own check, also where the next one is under way."""
        self._scouting.pool_opened()
        if self._keeper.error is not None:
            self._note_failure(self._keeper.error)
        self._publish(self._answered, answer=self._answer)

    # Where the address leads

    async def _send_scout(self, *, renew: bool) -> None:
        """Take what is found over a new connection for the host, where that is another server; or
        in any case, to ``renew`` the pool."""
        serial = self._store.next_serial()
        found: list[Reserved[PoolT]] = []
        is_taken = False
        try:
            answer = await self._held.open_apart(found)
            if not renew and _is_same_server(self._answer, answer):
                # Nothing but a check over another connection.
                self._note_answer(serial, answer)
                self._publish(serial, answer=answer)
                self._keep_pool()
                return
            is_taken = renew or self._is_another(answer)
        except FailedError:
            return
        finally:
            if found and not is_taken:
                self._held.drop_other(found[0])
        if not is_taken:
            return
        # No await from here on: those who follow the store find the one server, or the other.
        self._scouting.taken()
        self._held.drop()
        self._keeper.forget()
        self._held.take(found[0])
        self._note_answer(serial, answer)
        self._publish(serial, answer=answer)
        self._keep_pool()

    def _is_another(self, answer: Answer) -> bool:
        """Whether this is another server's than the one that is checked."""
        before = self._answer
        return before is None or _is_elsewhere(before, answer)


def _is_same_server(before: Answer | None, now: Answer) -> bool:
    """Whether two answers are one server's, in one role."""
    if before is None or now.started_at is None or before.writable != now.writable:
        return False
    return (before.system_identifier, before.started_at) == (now.system_identifier, now.started_at)


def _is_other_system(before: Answer, now: Answer) -> bool:
    """Whether both tell, and not the same."""
    return len({before.system_identifier, now.system_identifier} - {None}) > 1


def _is_elsewhere(before: Answer, now: Answer) -> bool:
    """Whether two answers can't be one server's, at about the same time."""
    if _is_other_system(before, now):
        return True
    return (before.writable, before.in_recovery) != (now.writable, now.in_recovery)


def _is_other(before: Answer, now: Answer) -> bool:
    """Whether two answers of one address over two connections may be two servers' though neither
    says so by its system."""
    if before.writable != now.writable:
        return True
    return now.writable and before.timeline != now.timeline
