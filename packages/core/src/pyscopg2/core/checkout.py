"""Who holds which connection.

The invariant: whoever fails or is cancelled leaves nothing checked out. A connection that was
taken from the driver is given back to it exactly once, and its place is free only then.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from enum import Enum, auto
from functools import partial
from typing import Any, Generic

from pyscopg2.core.adapter import Adapter, ConnT, PoolT, ReturnsEarly
from pyscopg2.core.background import Background
from pyscopg2.core.deadline import resume
from pyscopg2.core.places import Choose, Places
from pyscopg2.core.spell import Spell
from pyscopg2.core.store import Store
from pyscopg2.core.topology import Change, Role, Topology
from pyscopg2.core.watchdog import NOT_WAITING, Watchdog

logger = logging.getLogger("pyscopg2")


class Stage(Enum):
    """Of a connection's way through a user's hands, in this order."""

    NEW = auto()
    """Nobody has asked for it."""
    OUT = auto()
    """It is being taken, or a user has it."""
    ENDED = auto()
    """A user has it, but the manager has terminated it, and gives it back by itself."""
    RETURNING = auto()
    """The user has given it back; its place is not free yet."""
    BACK = auto()
    """It may be another user's."""


# An enumeration's attribute is looked up the slow way, and every release needs five of them.
NEW, OUT, ENDED, RETURNING, BACK = Stage

_HELD = frozenset({OUT, ENDED})
"""A user has it."""


class Checkout(Generic[PoolT, ConnT]):
    """A connection that is out, or will be."""

    __slots__ = ("connection", "spell", "stage", "ticks")

    connection: ConnT
    spell: Spell[PoolT]

    def __init__(self) -> None:
        self.stage = NEW
        self.ticks = NOT_WAITING
        """Of the `Watchdog`, while the end of a block or a release waits for its answer."""


class Checkouts(Generic[PoolT, ConnT]):
    """The connections that are out, and their way back, whatever happens meanwhile."""

    def __init__(
        self,
        adapter: Adapter[PoolT, ConnT],
        store: Store,
        choose: Choose,
        background: Background,
        *,
        start: Callable[[], object],
        suspect: Callable[[str], None],
        demand: Callable[[], None],
        refresh_timeout: float,
        abandon_timeout: float,
        timing: bool,
    ) -> None:
        """``start`` calls `open`, or raises where the manager cannot be used in this event loop;
        for ``suspect`` and ``demand`` see `Places`. ``timing``: whether the hosts' latency is of
        use to the policy."""
        self.adapter = adapter
        self.loop: asyncio.AbstractEventLoop | None = None
        """The one in which connections may be taken; None before the start and after the end."""
        self._closed: Exception | None = None
        self.start = start
        self.suspect = suspect
        self.refresh_timeout = refresh_timeout
        self._store = store
        self._background = background
        self._abandon_timeout = abandon_timeout
        self._timing = timing
        self._early: ReturnsEarly[PoolT, ConnT] | None = (
            adapter if isinstance(adapter, ReturnsEarly) else None
        )
        self.places: Places[PoolT] = Places(
            store.topology,
            choose,
            adapter.get_pool_maxsize,
            suspect=suspect,
            demand=demand,
            emptied=self._finish,
        )
        self.out: dict[int, Checkout[PoolT, ConnT]] = {}
        """By ``id()`` of the connection, until the driver has it back."""
        self._retired: dict[Spell[PoolT], asyncio.TimerHandle] = {}
        """The spells that wait for their last checkout, and when that wait ends."""
        self._watchdog: Watchdog[Checkout[PoolT, ConnT]] = Watchdog(
            refresh_timeout, self.out, self._terminate, self._may_return
        )
        self._closing: set[asyncio.Timeout] = set()
        """Of the pools that are being closed just now."""
        self._closing_time = refresh_timeout
        """Seconds that a pool has to close; then it is terminated."""
        self._some_ended = asyncio.Event()
        store.subscribe(self._follow)

    @property
    def topology(self) -> Topology:
        return self._store.topology

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Before the first connection is taken."""
        self.loop = loop
        self._watchdog.start()

    def raise_if_closed(self) -> None:
        """Raises the error given to `close`: nothing is handed out any more."""
        if self._closed is not None:
            raise self._closed

    def holder(self, connection: ConnT) -> Checkout[PoolT, ConnT] | None:
        """The checkout of a connection that a user has; None where it is not one of ours."""
        checkout = self.out.get(id(connection))
        return checkout if checkout is not None and checkout.stage in _HELD else None

    def register(self, connection: ConnT, spell: Spell[PoolT]) -> None:
        """Count a connection that was taken from the driver's pool by hand."""
        if self.holder(connection) is None:
            spell.in_use += 1
            self.out[id(connection)] = _taken(connection, spell)

    # Giving back

    def bounded(self, checkout: Checkout[PoolT, ConnT], ending: Awaitable[None]) -> Awaitable[None]:
        """The end of a block: unanswered for the refresh timeout, its connection is terminated."""
        checkout.ticks = 0
        return self._timed(checkout.spell, ending) if self._timing else ending

    async def release(self, checkout: Checkout[PoolT, ConnT], kwargs: dict[str, Any]) -> None:
        """Give a connection to the driver; its place is free when the driver has it.

        That is so whatever comes of it, an error or a cancellation: by the adapter's promise the
        connection is not out then, and it may be somebody else's already. Unanswered for the
        refresh timeout, it is terminated. Of one that the manager has terminated before, only the
        record is dropped.
        """
        if checkout.stage is ENDED:
            checkout.stage = BACK
            self._forget(checkout)
            return
        checkout.stage = RETURNING
        connection = checkout.connection
        spell = checkout.spell
        early = self._early
        if early is not None and (kwargs or not self.places.line.queues):
            early = None
        if early is None and self.adapter.is_connection_closed(connection):
            self.suspect(spell.address)
        checkout.ticks = 0
        try:
            if early is not None:
                settle = partial(self._settle, checkout)
                releasing = early.return_to_pool(connection, spell.pool, settle)
            elif kwargs:
                releasing = self.adapter.release_to_pool(connection, spell.pool, **kwargs)
            else:
                releasing = self.adapter.release_to_pool(connection, spell.pool)
            await (self._timed(spell, releasing) if self._timing else releasing)
        except GeneratorExit:
            # The event loop is gone, and with it all that is counted.
            raise
        except BaseException as exc:
            if kwargs and isinstance(exc, TypeError):
                # Refused for its arguments: it is out still.
                checkout.ticks = NOT_WAITING
                self._release_later(checkout)
            else:
                self._settle(checkout)
            raise
        if checkout.stage is RETURNING:
            # As `_settle` does: on the way of every release.
            checkout.stage = BACK
            key = id(connection)
            if self.out.get(key) is checkout:
                del self.out[key]
            if early is not None:
                # The driver would have said so of a sound one.
                self.suspect(spell.address)
            self.places.free(spell)

    def _forget(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """The driver has it: it may have given the same connection to another user already."""
        key = id(checkout.connection)
        if self.out.get(key) is checkout:
            del self.out[key]

    def _settle(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """The driver has it, and gives it to who waits for its place, which is free once."""
        if checkout.stage is RETURNING:
            checkout.stage = BACK
            self._forget(checkout)
            self.places.free(checkout.spell)

    def return_later(self, connection: ConnT, spell: Spell[PoolT]) -> None:
        """Give back a connection that is of no use to who took it, without waiting for it. It keeps
        a place meanwhile."""
        spell.in_use += 1
        self._release_later(_taken(connection, spell))

    def _release_later(self, checkout: Checkout[PoolT, ConnT]) -> None:
        self.out[id(checkout.connection)] = checkout
        checkout.stage = OUT
        self._background.spawn(self._release_unless_done(checkout))

    async def _release_unless_done(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """By the time this runs its user may have released it, and another may have it."""
        if checkout.stage in _HELD:
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

    def leave_to_itself(self, spell: Spell[PoolT], rest: Coroutine[Any, Any, ConnT]) -> None:
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

    def _terminate(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """What waits for an answer on this connection fails."""
        self.adapter.terminate_connection(checkout.connection)

    def _end(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """Terminate a connection that is out and give it back to the driver: its user gets an
        error now, and the user's own release of it, later, does nothing."""
        checkout.stage = ENDED
        self.adapter.terminate_connection(checkout.connection)
        self._background.spawn(self._bury(checkout))

    async def _bury(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """Give a dead connection back: its place in the driver's pool stays occupied otherwise."""
        try:
            self.adapter.terminate_connection(checkout.connection)
            async with asyncio.timeout(self.refresh_timeout):
                await self.adapter.release_to_pool(checkout.connection, checkout.spell.pool)
        finally:
            self.places.free(checkout.spell)

    def _held(self) -> list[Checkout[PoolT, ConnT]]:
        """Those that a user has."""
        return [checkout for checkout in self.out.values() if checkout.stage in _HELD]

    # Following the topology

    def _follow(self, after: Topology, changes: Sequence[Change]) -> None:
        """The store's listener."""
        now = asyncio.get_running_loop().time()
        for spell in self.places.follow(after, changes):
            answered_at = after[spell.address].answered_at
            since = now if answered_at is None else answered_at
            self._await_end(spell, max(now, since + self._abandon_timeout))
        for old, new in changes:
            if new.role is Role.SUPERSEDED and old.role is not Role.SUPERSEDED:
                lost = [c for c in self._held() if c.spell.address == new.address]
                self._end_all(lost, f"{new.address} is superseded by {new.superseded_by}")
                self.suspect(new.address)
            if old.error is not None and new.serving:
                # An outage is over. What it froze goes on now; what still hangs on connections
                # from before does so for ever, where their flows died without a sign.
                for spell in [s for s in self._retired if s.address == new.address]:
                    self._await_end(spell, now + self.refresh_timeout)

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
        lost = [checkout for checkout in self._held() if checkout.spell is spell]
        self._end_all(lost, f"still out on {spell.address} after its pool was retired")
        for checkout in tuple(self.out.values()):
            if checkout.spell is spell and checkout.stage is RETURNING:
                self._terminate(checkout)
        self._background.spawn(self._terminate_pool(spell))
        self._some_ended.set()

    def _end_all(self, checkouts: Iterable[Checkout[PoolT, ConnT]], why: str) -> None:
        lost = [checkout for checkout in checkouts if checkout.stage is OUT]
        if lost:
            logger.warning("connections terminated: %d, %s", len(lost), why)
        for checkout in lost:
            self._end(checkout)

    async def _close_pool(self, spell: Spell[PoolT]) -> None:
        try:
            async with asyncio.timeout(self._closing_time) as scope:
                self._closing.add(scope)
                try:
                    await self.adapter.close_pool(spell.pool)
                finally:
                    self._closing.discard(scope)
        except GeneratorExit:
            # The event loop is gone: there is no waiting any more.
            raise
        except BaseException:
            await self._terminate_pool(spell)
            raise

    async def _terminate_pool(self, spell: Spell[PoolT]) -> None:
        async with asyncio.timeout(self.refresh_timeout):
            await self.adapter.terminate_pool(spell.pool)

    # Closing

    def close(self, error: Exception, timeout: float) -> None:
        """Hand out nothing more, and send those who wait away with ``error``.

        The pools close with their last checkouts; what is out after ``timeout`` seconds is
        terminated. Called again, the shorter time counts.
        """
        self._closed = error
        self.loop = None
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

    def _may_return(self) -> bool:
        """Whether anything can still be on its way back: the watchdog stays until then."""
        return self.loop is not None or bool(self._retired)

    async def ended(self) -> None:
        """Until no retired spell waits for a checkout any more."""
        while self._retired:
            self._some_ended.clear()
            await self._some_ended.wait()


def _taken(connection: ConnT, spell: Spell[PoolT]) -> Checkout[PoolT, ConnT]:
    """The record of a connection that nobody waits for who has another."""
    checkout = Checkout[PoolT, ConnT]()
    checkout.stage = OUT
    checkout.connection = connection
    checkout.spell = spell
    return checkout
