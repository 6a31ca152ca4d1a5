"""The connections that are out, and their way back.

The invariant: a task that fails or is cancelled leaves nothing checked out. A connection that was
taken from the driver is given back to it exactly once, and its slot is free only then.
"""

import asyncio
import logging
from asyncio import current_task
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeAlias

from pyscopg2.balancer_policy.base import BalancerPolicy
from pyscopg2.core.adapter.protocol import Adapter, ConnT, PoolT, ReturnsEarly, TellsRecovery
from pyscopg2.core.adapter.stepping import resume
from pyscopg2.core.checkout.checkout import BACK, ENDED, HELD, OUT, RETURNING, Checkout, checked_out
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.retirement import Retirement
from pyscopg2.core.checkout.returns import Returns
from pyscopg2.core.checkout.role_comparison import RoleComparison
from pyscopg2.core.checkout.slots import Slots
from pyscopg2.core.checkout.termination import Termination
from pyscopg2.core.diagnosis import log
from pyscopg2.core.diagnosis.standing import Explanation
from pyscopg2.core.dsn.target import Target
from pyscopg2.core.events.event import AcquireTimedOut, PoolRetired
from pyscopg2.core.events.listeners import Listeners
from pyscopg2.core.monitoring.attention import WATCHFUL_TIME, Attention
from pyscopg2.core.statistics.observer import Observers
from pyscopg2.core.statistics.tally import Tallies
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.timing.background import Background
from pyscopg2.core.timing.watchdog import NOT_WAITING, Watchdog
from pyscopg2.core.topology.host_state import Role
from pyscopg2.core.topology.snapshot import Change, Topology
from pyscopg2.core.topology.store import Store

EndBlock: TypeAlias = Callable[[ConnT, BaseException | None], Awaitable[None] | None]


class Checkouts(Generic[PoolT, ConnT]):
    """Takes them back, whatever happens meanwhile, and ends them when their host is lost."""

    def __init__(
        self,
        adapter: Adapter[PoolT, ConnT],
        targets: Mapping[str, Target],
        store: Store,
        attention: Attention,
        policy: BalancerPolicy,
        background: Background,
        listeners: Listeners,
        tallies: Tallies,
        *,
        start: Callable[[], object],
        refresh_timeout: float,
        abandon_timeout: float,
    ) -> None:
        """``targets``: by address. ``start`` calls `open`, or raises where the manager can't be
        used in this event loop."""
        self.adapter = adapter
        self.targets = targets
        self.loop: asyncio.AbstractEventLoop | None = None
        """The one in which connections may be taken; None before the start and after the end."""
        self.start = start
        self.attention = attention
        self.refresh_timeout = refresh_timeout
        self.slots: Slots[PoolT] = Slots(
            adapter, store.topology, policy, attention, tallies, emptied=self._emptied
        )
        self.out: dict[int, Checkout[PoolT, ConnT]] = {}
        """By ``id()`` of the connection, until the driver has it back."""
        self.returns: Returns[ConnT] = Returns()
        self._store = store
        self._background = background
        self._listeners = listeners
        self._tallies = tallies
        self.observers: Observers | None = None
        """Who is told of each acquire; None: nobody."""
        self._abandon_timeout = abandon_timeout
        self._closed: Callable[[], Exception] | None = None
        self._is_timed = bool(getattr(policy, "needs_latency", False))
        """Whether the hosts' latency is of use to the policy."""
        self._termination: Termination[PoolT, ConnT] = Termination(
            adapter, self.slots, background, listeners, tallies, refresh_timeout
        )
        self.retirement: Retirement[PoolT, ConnT] = Retirement(
            adapter, self.out, self._termination, background, listeners, refresh_timeout
        )
        self._watchdog: Watchdog[Checkout[PoolT, ConnT]] = Watchdog(
            refresh_timeout, self.out, self._termination.bite
        )
        # As an attribute, and not by `isinstance`: that does not see through an adapter which hands
        # on what it is asked, whose commits would be lost in silence.
        self.end_block: EndBlock[ConnT] | None = getattr(adapter, "end_block", None)
        """None where blocks neither commit nor roll back."""
        self._early: ReturnsEarly[PoolT, ConnT] | None = (
            adapter if isinstance(adapter, ReturnsEarly) else None
        )
        """None also while roles are compared: that has to see what comes back."""
        self._comparison: RoleComparison[ConnT] | None = (
            RoleComparison(adapter, store, attention)
            if isinstance(adapter, TellsRecovery)
            else None
        )
        self._comparing: asyncio.TimerHandle | None = None
        """Ends the comparing of roles."""
        self._is_closed: Callable[[ConnT], bool] = adapter.is_connection_closed
        """For connections on their way back."""
        self._reign = store.topology.reign
        store.subscribe(self._follow)

    @property
    def topology(self) -> Topology:
        return self._store.topology

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Before the first connection is taken."""
        self.loop = loop
        self._watchdog.start()

    def raise_if_closed(self) -> None:
        """Raises what was given to `close`: nothing is handed out any more."""
        if self._closed is not None:
            raise self._closed()

    def close(self, error: Callable[[], Exception], timeout: float) -> None:
        """Hand out nothing more, and send the waiters away, each with an ``error()`` of its own.

        The pools close with their last checkouts; what is out after ``timeout`` seconds is
        terminated. Called again, the shorter time counts.
        """
        self._closed = error
        self.loop = None
        self._stop_comparing()
        until = asyncio.get_running_loop().time() + timeout
        for host_pool in self.slots.close(error):
            address = host_pool.address
            self._tallies.hosts[address].retired += 1
            why = "the manager closes"
            self._listeners.note(PoolRetired(address=address, pool=host_pool.pool, why=why))
            self.retirement.retire(host_pool, until)
        self.retirement.close_all(until)
        self._listeners.flush()

    def cut_all(self, address: str) -> None:
        """In the last moments of an event loop: terminate what is out on this host. Its pools are
        terminated next."""
        for checkout in tuple(self.out.values()):
            if checkout.host_pool.address == address:
                self._termination.cut(checkout)

    async def ended(self) -> None:
        """Until no pool waits for a checkout any more."""
        await self.retirement.ended()
        self._watchdog.stop()

    def timed_out(self, explanation: Explanation, timeout: float) -> None:
        """An acquire gives up, after so many seconds."""
        hindrance = explanation.hindrance
        self._tallies.timeouts["" if hindrance is None else hindrance.value] += 1
        if self._listeners:
            self._listeners.tell(AcquireTimedOut(timeout=timeout, explanation=explanation))

    def holder(self, connection: ConnT) -> Checkout[PoolT, ConnT] | None:
        """The checkout of a connection that a user has; None where it is not one of ours."""
        checkout = self.out.get(id(connection))
        return checkout if checkout is not None and checkout.stage in HELD else None

    def claim(self, connection: ConnT) -> Checkout[PoolT, ConnT]:
        """`holder`, of a connection that the running task is about to give back.

        `ValueError`: it is none of ours, or was given back before. Drivers hand out the same object
        again, so another task may have it by now. A second release is known for one where this task
        gave back what it had taken by itself, and the task that has the object now still runs. A
        task that gives back for others may do so again.
        """
        # As `holder` does: on the way of every release.
        key = id(connection)
        checkout = self.out.get(key)
        if checkout is None or checkout.stage not in HELD:
            raise ValueError("not a connection of this manager's, or given back already")
        returns = self.returns
        if not returns.tells:
            return checkout
        task = current_task(self.loop)
        try:
            owner = checkout.owner
        except AttributeError:
            is_others = True
        else:
            taker = None if owner is None else owner()
            if taker is task and owner is not None:
                givers = returns.givers.get(key)
                if givers is None:
                    returns.begin(connection, owner)
                else:
                    givers.add(owner)
                    if len(givers) > returns.most:
                        returns.prune(givers)
                return checkout
            is_others = taker is not None and not taker.done()
        if is_others and task is not None and returns.has(connection, task):
            raise ValueError("given back already by this task, and another has it by now")
        return checkout

    def register(self, connection: ConnT, host_pool: HostPool[PoolT]) -> None:
        """Count a connection that was taken from the driver's pool by hand."""
        if self.holder(connection) is None:
            self.slots.add(host_pool)
            checkout = self.out[id(connection)] = checked_out(connection, host_pool)
            checkout.owner = None

    # Giving back

    def bounded(self, checkout: Checkout[PoolT, ConnT], ending: Awaitable[None]) -> Awaitable[None]:
        """The end of a block, which the watchdog times from now on: unanswered for the refresh
        timeout, its connection is terminated."""
        checkout.ticks = 0
        return self._timed(checkout.host_pool, ending) if self._is_timed else ending

    async def release(self, checkout: Checkout[PoolT, ConnT], kwargs: dict[str, Any]) -> None:
        """Give a connection to the driver; its slot is free when the driver has it.

        Unanswered for the refresh timeout, it is terminated, and then fails. The cases:

        1. The manager has terminated the connection before, and gives it back by itself: only the
           record is dropped.
        2. The driver has taken it back.
        3. The driver says so early (`ReturnsEarly`): the slot is free then, and what follows, error
           or not, changes nothing.
        4. It fails, or is cancelled: by the adapter's promise the connection is not out then, and
           it may be somebody else's already. So the slot is free all the same.
        5. The user's arguments were refused: the connection is out still. It is released without.
        6. The event loop is gone, and with it all that is counted.

        A connection that is closed has its host checked; so has one for which the driver was asked
        to say early that it is back, and did not, unless that raised.
        """
        if self.observers is not None:
            self._tell_of_use(self.observers, checkout)
        if checkout.stage is ENDED:
            checkout.stage = BACK
            self._forget(checkout)
            return
        checkout.stage = RETURNING
        connection = checkout.connection
        host_pool = checkout.host_pool
        early = self._early
        if early is not None and (kwargs or not self.slots.wait_queues.occupied):
            early = None
        try:
            if early is None and self._is_closed(connection):
                self.attention.check_soon(host_pool.address)
        except Exception as exc:
            log.say(logging.ERROR, "the adapter's is_connection_closed raised", exc=exc)
        checkout.ticks = 0
        try:
            if early is not None:
                settle = partial(self._finish, checkout)
                releasing = early.return_to_pool(connection, host_pool.pool, settle)
            elif kwargs:
                releasing = self.adapter.release_to_pool(connection, host_pool.pool, **kwargs)
            else:
                releasing = self.adapter.release_to_pool(connection, host_pool.pool)
            await (self._timed(host_pool, releasing) if self._is_timed else releasing)
        except GeneratorExit:
            # The event loop is gone, and with it all that is counted.
            raise
        except BaseException as exc:
            if kwargs and isinstance(exc, TypeError):
                # Refused for its arguments: it is out still.
                checkout.ticks = NOT_WAITING
                self._release_later(checkout)
            else:
                self._finish(checkout)
            raise
        if checkout.stage is RETURNING:
            # As `_finish` does: on the way of every release.
            checkout.stage = BACK
            key = id(connection)
            if self.out.get(key) is checkout:
                del self.out[key]
            if early is not None:
                # The driver would have said so of a sound one.
                self.attention.check_soon(host_pool.address)
            self.slots.free(host_pool)

    def _tell_of_use(self, observers: Observers, checkout: Checkout[PoolT, ConnT]) -> None:
        """Once, and only of what was acquired while somebody observed."""
        try:
            taken_at = checkout.taken_at
            del checkout.taken_at
        except AttributeError:
            return
        observers.released(checkout.host_pool.address, stopwatch.clock() - taken_at)

    def _forget(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """The driver has it: it may have given the same connection to another user already."""
        key = id(checkout.connection)
        if self.out.get(key) is checkout:
            del self.out[key]

    def _finish(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """The driver has it back: free its slot, once."""
        if checkout.stage is RETURNING:
            checkout.stage = BACK
            self._forget(checkout)
            self.slots.free(checkout.host_pool)

    def return_later(self, connection: ConnT, host_pool: HostPool[PoolT]) -> None:
        """Give back a connection that is of no use to the acquire that took it, without waiting for
        it. It keeps a slot meanwhile."""
        self.slots.add(host_pool)
        self._release_later(checked_out(connection, host_pool))

    def _release_later(self, checkout: Checkout[PoolT, ConnT]) -> None:
        self.out[id(checkout.connection)] = checkout
        checkout.stage = OUT
        self._background.spawn(self._release_unless_done(checkout))

    async def _release_unless_done(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """By the time this runs its user may have released it, and another may have it."""
        if checkout.stage in HELD:
            await self.release(checkout, {})

    async def _timed(self, host_pool: HostPool[PoolT], work: Awaitable[None]) -> None:
        """Do it, and tell how long the server took, where it was asked at all."""
        steps = work.__await__()
        try:
            pending = next(steps)
        except StopIteration:
            return
        began = stopwatch.clock()
        await resume(steps, pending)
        now = stopwatch.clock()
        host_pool.observe(now - began, now)

    def leave_to_itself(self, host_pool: HostPool[PoolT], rest: Coroutine[Any, Any, ConnT]) -> None:
        """An acquire did not end when it was interrupted: what remains of it keeps a slot."""
        self.slots.add(host_pool)
        self._background.spawn(self._dispose(host_pool, rest))

    async def _dispose(self, host_pool: HostPool[PoolT], rest: Coroutine[Any, Any, ConnT]) -> None:
        try:
            connection = await rest
        except BaseException:
            self.slots.free(host_pool)
            raise
        await self._termination.bury(checked_out(connection, host_pool))

    def _emptied(self, host_pool: HostPool[PoolT]) -> None:
        self.retirement.emptied(host_pool)

    # Following the topology

    def _follow(self, after: Topology, changes: Sequence[Change]) -> None:
        """The store's listener."""
        now = asyncio.get_running_loop().time()
        if after.reign != self._reign:
            if self._reign[0] is not None:
                self._compare_roles_until(now + WATCHFUL_TIME)
            self._reign = after.reign
        # It serves waiters; they run after this turn, when what is superseded has been cut off.
        for host_pool in self.slots.follow(after, changes):
            self._tallies.hosts[host_pool.address].retired += 1
            answered_at = after[host_pool.address].answered_at
            since = now if answered_at is None else answered_at
            self.retirement.retire(host_pool, max(now, since + self._abandon_timeout))
        for old, new in changes:
            if new.role is Role.SUPERSEDED and old.role is not Role.SUPERSEDED:
                lost = [c for c in self.out.values() if c.host_pool.address == new.address]
                self._termination.end(
                    new.address, lost, f"{new.address} is superseded by {new.yields_to}"
                )
            if old.has_failed and new.answering:
                # An outage is over. What it froze goes on now; what still hangs on connections
                # from before does so for ever, where their flows died without a sign.
                self.retirement.hasten(new.address, now + self.refresh_timeout)

    def _compare_roles_until(self, when: float) -> None:
        if self._comparison is None:
            return
        if self._comparing is not None:
            self._comparing.cancel()
        self._comparing = asyncio.get_running_loop().call_at(when, self._stop_comparing)
        self._early = None
        self._is_closed = self._compare

    def _stop_comparing(self) -> None:
        if self._comparing is not None:
            self._comparing.cancel()
            self._comparing = None
        self._early = self.adapter if isinstance(self.adapter, ReturnsEarly) else None
        self._is_closed = self.adapter.is_connection_closed

    def _compare(self, connection: ConnT) -> bool:
        """Whether it is closed. On the way its role is compared with its host's."""
        checkout = self.out.get(id(connection))
        if self._comparison is not None and checkout is not None:
            self._comparison.compare(connection, checkout.host_pool)
        return self.adapter.is_connection_closed(connection)
