"""Who holds which connection.

The invariant: whoever fails or is cancelled leaves nothing checked out. A connection that was
taken from the driver is given back to it exactly once, and its place is free only then.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from functools import partial
from typing import Any, Generic, NoReturn, cast

from pyscopg2.core.adapter import Adapter, ConnT, PoolT
from pyscopg2.core.alarm import Alarm
from pyscopg2.core.background import Background
from pyscopg2.core.deadline import Interrupted, resume, within
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.faults import is_misuse, is_suspicious
from pyscopg2.core.line import FIRST
from pyscopg2.core.places import PATIENCE, RETRY_GAP, Choose, Places
from pyscopg2.core.selection import Request
from pyscopg2.core.spell import Spell
from pyscopg2.core.store import Store
from pyscopg2.core.topology import Role, Topology
from pyscopg2.core.watchdog import Watchdog

logger = logging.getLogger("pyscopg2")


_RESOLUTION = time.get_clock_info("monotonic").resolution
"""Seconds by which the event loop may call a timer early."""


class Checkout(Generic[PoolT, ConnT]):
    """One acquire, and the connection that it got, while that is out."""

    __slots__ = ("begun", "connection", "ended", "kwargs", "request", "spell", "timeout")

    connection: ConnT
    spell: Spell[PoolT]

    def __init__(self, request: Request, timeout: float, kwargs: dict[str, Any]) -> None:
        self.request = request
        self.timeout = timeout
        self.kwargs = kwargs
        self.begun = False
        self.ended = False
        """The manager has terminated it, and gives it back to the driver by itself."""


class Checkouts(Generic[PoolT, ConnT]):
    """Takes connections from the driver for users, and gives them back."""

    def __init__(
        self,
        adapter: Adapter[PoolT, ConnT],
        store: Store,
        choose: Choose,
        background: Background,
        *,
        start: Callable[[], asyncio.AbstractEventLoop],
        suspect: Callable[[str], None],
        demand: Callable[[], None],
        refresh_timeout: float,
        abandon_timeout: float,
        timing: bool,
    ) -> None:
        """``start`` is called before each acquire and returns the event loop; for ``suspect`` and
        ``demand`` see `Places`. ``timing``: whether the hosts' latency is of use to the policy."""
        self._adapter = adapter
        self._start = start
        self._store = store
        self._background = background
        self._suspect = suspect
        self._refresh_timeout = refresh_timeout
        self._abandon_timeout = abandon_timeout
        self._timing = timing
        self.places: Places[PoolT] = Places(
            store.topology,
            choose,
            adapter.get_pool_maxsize,
            suspect=suspect,
            demand=demand,
            emptied=self._finish,
        )
        self._out: dict[int, Checkout[PoolT, ConnT]] = {}
        self._retired: dict[Spell[PoolT], asyncio.TimerHandle] = {}
        """The spells that wait for their last checkout, and when that wait ends."""
        self._unanswered: Watchdog[Checkout[PoolT, ConnT]] = Watchdog(
            refresh_timeout, self._terminate
        )
        """Blocks that are ending, and connections on their way back."""
        self._closing: set[asyncio.Timeout] = set()
        """Of the pools that are being closed just now."""
        self._closing_time = refresh_timeout
        """Seconds that a pool has to close; then it is terminated."""
        self._some_ended = asyncio.Event()
        self._closed: Exception | None = None
        store.subscribe(self._follow)

    # Taking

    async def acquire(self, checkout: Checkout[PoolT, ConnT]) -> ConnT:
        """A connection for its request within its timeout, all work included.

        `AcquireTimeoutError` after that; the error given to `close` where the manager closes.
        Misuse of the driver (an unknown argument) raises the driver's own error at once. Every
        other failure of a host is tried elsewhere, or there again after its next good check.
        `RuntimeError`: this acquire has been used before.
        """
        if checkout.begun:
            raise RuntimeError("this acquire was awaited or entered before: call acquire() again")
        checkout.begun = True
        loop = self._start()
        request = checkout.request
        places = self.places
        # Set when there is something to wait for: nothing was awaited until then.
        when: float | None = None
        ticket: int | None = None
        failure: Exception | None = None
        while True:
            spell = places.take(request)
            if spell is None:
                if self._closed is not None:
                    raise self._closed
                if when is None:
                    when = loop.time() + checkout.timeout
                waiter = places.join(request, when, ticket)
                revision = places.revision
                try:
                    spell = await waiter
                except BaseException:
                    places.leave(waiter)
                    raise
                if spell is None:
                    self._give_up(request, failure)
                ticket = waiter.ticket
                if revision != places.revision and spell not in places.candidates(request):
                    # The host was lost between the hand-over and this step.
                    places.free(spell)
                    continue
            revision = places.revision
            try:
                steps = self._adapter.acquire_from_pool(spell.pool, **checkout.kwargs).__await__()
                try:
                    pending = next(steps)
                except StopIteration as stop:
                    connection = cast(ConnT, stop.value)
                else:
                    if when is None:
                        when = loop.time() + checkout.timeout
                    connection = await self._connect(spell, request, steps, pending, when)
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
                checkout.connection = connection
                checkout.spell = spell
                self._out[id(connection)] = checkout
                if spell.limit != spell.size:
                    places.trust(spell)
                if revision == places.revision or spell in places.candidates(request):
                    return connection
                # The host's role changed while the driver was connecting.
                self._release_later(_taken(connection, spell))
            # The place is lost, but not the turn.
            ticket = FIRST if ticket is None else ticket
            if when is None:
                when = loop.time() + checkout.timeout
            elif loop.time() + _RESOLUTION >= when:
                self._give_up(request, failure)

    async def _connect(
        self,
        spell: Spell[PoolT],
        request: Request,
        steps: Generator[Any, Any, ConnT],
        pending: Any,
        when: float,
    ) -> ConnT:
        """The rest of an acquire that the driver could not finish at once."""
        loop = asyncio.get_running_loop()
        scope = asyncio.timeout_at(when)
        scopes = spell.scopes.setdefault(request, {})
        scopes[scope] = None
        suspicion = loop.call_later(PATIENCE, self._suspect, spell.address)
        # The host's checks may be well, over the connection that is open, while connects hang.
        patience = max(RETRY_GAP, min(self._refresh_timeout, (when - loop.time()) / 2))
        doubt = Alarm(loop, patience, partial(self._doubt, spell, request, scope))
        try:
            connection = await within(scope, steps, pending, partial(self._leave, spell))
            self.places.prove(spell)
            return connection
        finally:
            del scopes[scope]
            suspicion.cancel()
            doubt.cancel()

    def _doubt(self, spell: Spell[PoolT], request: Request, scope: asyncio.Timeout) -> None:
        """A connect takes very long: who waits for it goes elsewhere, if there is a place, and no
        others come here but for what is open."""
        if self.places.doubt(spell, request) and not scope.expired():
            scope.reschedule(_now())

    def _give_up(self, request: Request, failure: Exception | None) -> NoReturn:
        topology = self._store.topology
        if failure is None:
            failure = next((host.error for host in topology if host.hopeless), None)
        raise AcquireTimeoutError(
            f"no connection to {request} within the deadline: {topology}"
        ) from failure

    def _leave(self, spell: Spell[PoolT], rest: Coroutine[Any, Any, ConnT]) -> None:
        """An acquire did not end when it was interrupted: what remains of it keeps a place."""
        spell.in_use += 1
        self._background.spawn(self._dispose(spell, rest))

    async def _dispose(self, spell: Spell[PoolT], rest: Coroutine[Any, Any, ConnT]) -> None:
        try:
            connection = await rest
        except BaseException:
            self.places.free(spell)
            raise
        await self._bury(_taken(connection, spell))

    # Giving back

    def holder(self, connection: ConnT) -> Checkout[PoolT, ConnT] | None:
        """The checkout of a connection that is out; None where it is not one of ours."""
        return self._out.get(id(connection))

    def register(self, connection: ConnT, spell: Spell[PoolT]) -> None:
        """Count a connection that was taken from the driver's pool by hand."""
        if id(connection) not in self._out:
            spell.in_use += 1
            self._out[id(connection)] = _taken(connection, spell)

    def end_block(
        self, checkout: Checkout[PoolT, ConnT], exc: BaseException | None
    ) -> Coroutine[Any, Any, None]:
        """End an ``async with`` block as the driver does, and release its connection.

        Where a commit or rollback is unanswered for the refresh timeout, the connection is
        terminated, whereupon it fails. An error of the block, or of its end, that tells of a
        change on the host makes that suspected.
        """
        ending = None
        # Otherwise the block has given its connection back by itself: it may be another user's.
        if self._out.get(id(checkout.connection)) is checkout:
            try:
                ending = self._adapter.end_block(checkout.connection, exc)
            except BaseException as error:
                ending = _fail(error)
            if ending is None and exc is None:
                # The usual case: one coroutine, not two.
                return self.release(checkout, {})
        return self._end_block(checkout, exc, ending)

    async def _end_block(
        self,
        checkout: Checkout[PoolT, ConnT],
        exc: BaseException | None,
        ending: Awaitable[None] | None,
    ) -> None:
        try:
            if ending is not None:
                self._unanswered.watch(checkout)
                await (self._timed(checkout.spell, ending) if self._timing else ending)
        except BaseException as error:
            exc = error
            raise
        finally:
            if exc is not None and is_suspicious(exc, self._adapter.sqlstate):
                self._suspect(checkout.spell.address)
            # Somebody else may have given it back meanwhile: their release is watched still.
            if self._out.get(id(checkout.connection)) is checkout:
                try:
                    await self.release(checkout, {})
                except Exception:
                    # An error of the block, its cancellation above all, is not hidden by this one.
                    if exc is None:
                        raise

    async def release(self, checkout: Checkout[PoolT, ConnT], kwargs: dict[str, Any]) -> None:
        """Give a connection to the driver; its place is free when the driver is done with it.

        That is so whatever comes of it, an error or a cancellation: by the adapter's promise the
        connection is not out then, and it may be somebody else's already. Unanswered for the
        refresh timeout, it is terminated. Of one that the manager has terminated before, only the
        record is dropped.
        """
        connection = checkout.connection
        spell = checkout.spell
        del self._out[id(connection)]
        if checkout.ended:
            self._unanswered.forget(checkout)
            return
        if self._adapter.is_connection_closed(connection):
            self._suspect(spell.address)
        self._unanswered.watch(checkout)
        try:
            releasing = self._adapter.release_to_pool(connection, spell.pool, **kwargs)
            await (self._timed(spell, releasing) if self._timing else releasing)
        except GeneratorExit:
            # The event loop is gone, and with it all that is counted.
            raise
        except BaseException as exc:
            self._unanswered.forget(checkout)
            if kwargs and isinstance(exc, TypeError):
                # Refused for its arguments: it is out still.
                self._release_later(checkout)
            else:
                self.places.free(spell)
            raise
        self._unanswered.forget(checkout)
        self.places.free(spell)

    def _release_later(self, checkout: Checkout[PoolT, ConnT]) -> None:
        self._out[id(checkout.connection)] = checkout
        self._background.spawn(self._release_unless_done(checkout))

    async def _release_unless_done(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """By the time this runs its user may have released it, and another may have it."""
        if self._out.get(id(checkout.connection)) is checkout:
            await self.release(checkout, {})

    async def _timed(self, spell: Spell[PoolT], work: Awaitable[None]) -> None:
        """Do it, and tell how long the server took, where it was asked at all."""
        steps = work.__await__()
        try:
            pending = next(steps)
        except StopIteration:
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        await resume(steps, pending)
        spell.observe(loop.time() - began, loop.time())

    def _terminate(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """What waits for an answer on this connection fails."""
        self._adapter.terminate_connection(checkout.connection)

    def _end(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """Terminate a connection that is out and give it back to the driver: its user gets an
        error now, and the user's own release of it, later, does nothing."""
        checkout.ended = True
        self._adapter.terminate_connection(checkout.connection)
        self._background.spawn(self._bury(checkout))

    async def _bury(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """Give a dead connection back: its place in the driver's pool stays occupied otherwise."""
        try:
            self._adapter.terminate_connection(checkout.connection)
            async with asyncio.timeout(self._refresh_timeout):
                await self._adapter.release_to_pool(checkout.connection, checkout.spell.pool)
        finally:
            self.places.free(checkout.spell)

    # Following the topology

    def _follow(self, before: Topology, after: Topology) -> None:
        """The store's listener."""
        now = asyncio.get_running_loop().time()
        for spell in self.places.follow(before, after):
            answered_at = after[spell.address].answered_at
            since = now if answered_at is None else answered_at
            self._await_end(spell, max(now, since + self._abandon_timeout))
        for old, new in zip(before, after, strict=True):
            if new.role is Role.SUPERSEDED and old.role is not Role.SUPERSEDED:
                lost = [c for c in self._out.values() if c.spell.address == new.address]
                self._end_all(lost, f"{new.address} is superseded by {new.superseded_by}")
                self._suspect(new.address)
            if old.error is not None and new.serving:
                # An outage is over. What it froze goes on now; what still hangs on connections
                # from before does so for ever, where their flows died without a sign.
                for spell in [s for s in self._retired if s.address == new.address]:
                    self._await_end(spell, now + self._refresh_timeout)

    def _await_end(self, spell: Spell[PoolT], until: float) -> None:
        """Close a retired spell's pool with its last checkout, or when the time is up."""
        timer = self._retired.get(spell)
        if timer is not None:
            until = min(until, timer.when())
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._retired[spell] = loop.call_at(until, self._abandon, spell)
        if not spell.in_use and until > loop.time():
            self._finish(spell)

    def _finish(self, spell: Spell[PoolT]) -> None:
        """The last checkout of a retired spell is back."""
        timer = self._retired.pop(spell, None)
        if timer is not None:
            timer.cancel()
            self._background.spawn(self._close_pool(spell))
            self._some_ended.set()

    def _abandon(self, spell: Spell[PoolT]) -> None:
        """A retired spell's time is up."""
        del self._retired[spell]
        lost = [checkout for checkout in self._out.values() if checkout.spell is spell]
        self._end_all(lost, f"still out on {spell.address} after its pool was retired")
        for checkout in self._unanswered:
            if checkout.spell is spell:
                self._terminate(checkout)
        self._background.spawn(self._terminate_pool(spell))
        self._some_ended.set()

    def _end_all(self, checkouts: Iterable[Checkout[PoolT, ConnT]], why: str) -> None:
        lost = [checkout for checkout in checkouts if not checkout.ended]
        if lost:
            logger.warning("connections terminated: %d, %s", len(lost), why)
        for checkout in lost:
            self._end(checkout)

    async def _close_pool(self, spell: Spell[PoolT]) -> None:
        try:
            async with asyncio.timeout(self._closing_time) as scope:
                self._closing.add(scope)
                try:
                    await self._adapter.close_pool(spell.pool)
                finally:
                    self._closing.discard(scope)
        except GeneratorExit:
            # The event loop is gone: there is no waiting any more.
            raise
        except BaseException:
            await self._terminate_pool(spell)
            raise

    async def _terminate_pool(self, spell: Spell[PoolT]) -> None:
        async with asyncio.timeout(self._refresh_timeout):
            await self._adapter.terminate_pool(spell.pool)

    # Closing

    def close(self, error: Exception, timeout: float) -> None:
        """Hand out nothing more, and send those who wait away with ``error``.

        The pools close with their last checkouts; what is out after ``timeout`` seconds is
        terminated. Called again, the shorter time counts.
        """
        self._closed = error
        now = asyncio.get_running_loop().time()
        for spell in (*self.places.close(error), *self._retired):
            self._await_end(spell, now + timeout)
        if not timeout:
            self._closing_time = 0.0
            for scope in self._closing:
                if not scope.expired():
                    scope.reschedule(now)

    def retired(self, address: str) -> list[PoolT]:
        """The host's pools that wait for their last checkouts."""
        return [spell.pool for spell in self._retired if spell.address == address]

    async def ended(self) -> None:
        """Until no retired spell waits for a checkout any more."""
        while self._retired:
            self._some_ended.clear()
            await self._some_ended.wait()


def _taken(connection: ConnT, spell: Spell[PoolT]) -> Checkout[PoolT, ConnT]:
    """The record of a connection that nobody waits for who has another."""
    checkout = Checkout[PoolT, ConnT](Request(), 0, {})
    checkout.connection = connection
    checkout.spell = spell
    return checkout


async def _fail(error: BaseException) -> None:
    raise error


def _now() -> float:
    return asyncio.get_running_loop().time()
