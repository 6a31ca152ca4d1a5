"""The manager: the public methods and their validation, no machinery."""

import asyncio
import contextvars
import itertools
import math
import random
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Generic, Protocol, Self, TypedDict, cast

from pyscopg2.balancer_policy import BalancerPolicy, GreedyBalancerPolicy
from pyscopg2.core import arguments
from pyscopg2.core.adapter import Adapter, ChecksOptions, ConnT, PoolT, TakesExtraParams
from pyscopg2.core.arguments import not_a_flag, require_count, require_flag, require_timeout
from pyscopg2.core.attempts.attempt import Attempt
from pyscopg2.core.attempts.attempts import Attempts
from pyscopg2.core.attempts.repeatable import is_lost
from pyscopg2.core.attempts.shared import Shared
from pyscopg2.core.causal import CausalScope, current_session
from pyscopg2.core.checkout.acquire import Acquire, OwnedAcquire
from pyscopg2.core.checkout.bound import Bound
from pyscopg2.core.checkout.bounded_acquire import BoundedAcquire, LateBoundAcquire
from pyscopg2.core.checkout.causal_acquire import CausalAcquire
from pyscopg2.core.checkout.census import count
from pyscopg2.core.checkout.checkouts import Checkouts
from pyscopg2.core.checkout.context import AcquireContext
from pyscopg2.core.checkout.explanation import blamed, explain
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.request import Request
from pyscopg2.core.checkout.selection import eligible
from pyscopg2.core.checkout.wait_queue import WaitQueue
from pyscopg2.core.diagnosis import log
from pyscopg2.core.diagnosis.standing import Explanation
from pyscopg2.core.dsn import Surroundings, Target, resolve
from pyscopg2.core.errors import NotReadyError
from pyscopg2.core.events.listeners import Listener
from pyscopg2.core.events.stream import EventStream
from pyscopg2.core.lifecycle import Lifecycle
from pyscopg2.core.statistics.observer import AcquireObserver, Observers
from pyscopg2.core.statistics.stats import Stats
from pyscopg2.core.statistics.tally import Times
from pyscopg2.core.topology import HostState, Topology
from pyscopg2.core.topology.position_query import POSITION_QUERY, parse_position
from pyscopg2.core.topology.store import Predicate
from pyscopg2.core.wal import WalPosition

__all__ = ("AcquireContext", "Attempt", "Attempts", "BasePoolManager", "Settings", "WalPosition")


_numbers = itertools.count()

_FEW = 64
"""So many values of ``max_lag`` are remembered: a program has a handful."""


def _never(_: Topology) -> bool:
    return False


class Settings(TypedDict, total=False):
    """The arguments of a `BasePoolManager` but for its DSN: for a subclass that has some of its
    own, and hands these on (``**settings: Unpack[Settings]``)."""

    acquire_timeout: float
    refresh_delay: float
    refresh_timeout: float
    fallback_master: bool
    master_as_replica_weight: float
    balancer_policy: BalancerPolicy | type[BalancerPolicy]
    stopwatch_window_size: int
    pool_factory_kwargs: Mapping[str, Any] | None
    abandon_timeout: float
    fencing: bool
    max_lag: float | None


class BasePoolManager(Generic[PoolT, ConnT]):
    """From one multi-host DSN: a driver pool per host, and the right one's connections.

    Each adapter package has a `PoolManager`, which is this class with its `adapter` filled in. It
    may be constructed anywhere, also before an event loop runs; it starts on first use, in the
    loop that uses it first, and belongs to that loop from then on (`RuntimeError` in another). One
    that was started and is forgotten without having been closed gives a `ResourceWarning`.

    ``async with`` starts it and closes it. It waits for no host: `ready` does.
    """

    adapter: Adapter[PoolT, ConnT]
    """The driver. Set by the subclass."""

    adapters: Mapping[str, Adapter[PoolT, ConnT]] = MappingProxyType({})
    """Where a DSN may choose among several drivers: by what its URI begins with, such as
    ``postgresql+asyncpg://``. For any other DSN it is `adapter`."""

    def __init__(
        self,
        dsn: str,
        acquire_timeout: float = 1.0,
        refresh_delay: float = 1.0,
        refresh_timeout: float = 1.0,
        fallback_master: bool = False,
        master_as_replica_weight: float = 0.0,
        balancer_policy: BalancerPolicy | type[BalancerPolicy] = GreedyBalancerPolicy,
        stopwatch_window_size: int = 128,
        pool_factory_kwargs: Mapping[str, Any] | None = None,
        abandon_timeout: float = 10.0,
        fencing: bool = True,
        *,
        max_lag: float | None = None,
    ) -> None:
        """No connection is opened here. All times are in seconds.

        :param dsn: one or more hosts, as a URI or in keyword/value form, as libpq reads it. What
            it does not say is taken, here and now, from where libpq takes it: the environment, a
            service file and the password file, small files that are read while the caller waits.
        :param acquire_timeout: for all the work of one `acquire`, unless it is told otherwise.
        :param refresh_delay: from one check of a host to the next, while nothing is suspected.
        :param refresh_timeout: a check unanswered for so long makes the host unavailable; a reset,
            commit or rollback unanswered for so long has its connection terminated.
        :param fallback_master: reads go to a master while no replica is in service.
        :param master_as_replica_weight: the probability, 0 to 1, that a read considers the masters
            beside the replicas.
        :param balancer_policy: a class of `pyscopg2.balancer_policy` or of your own, or an
            instance.
        :param stopwatch_window_size: over so many checks a host's response time is the median.
        :param pool_factory_kwargs: for the driver's pool. The size it gives is for users: the
            monitor's one connection is added to it.
        :param abandon_timeout: connections that are out on a host which has not answered for so
            long are terminated. Where it answers again sooner, those from before have the refresh
            timeout to come back.
        :param fencing: whether a master is superseded by one on a newer timeline.
        :param max_lag: for reads that say nothing else: see `acquire`.
        :raises DsnError: libpq would refuse the DSN, or what it finds beside it.
        :raises TypeError: an argument of the wrong kind; ``host``, ``port`` or ``dsn`` in
            ``pool_factory_kwargs``, or an option that the driver does not know.
        :raises ValueError: a number out of its range, or a pool option the driver would refuse.
        """
        if not hasattr(type(self), "adapter"):
            raise TypeError(
                f"{type(self).__name__} has no adapter: use the PoolManager of an adapter package,"
                " or set the class attribute `adapter`"
            )
        options = arguments.require_options(pool_factory_kwargs)
        self._acquire_timeout = arguments.require_seconds(
            "acquire_timeout", acquire_timeout, zero=True
        )
        refresh_delay = arguments.require_seconds("refresh_delay", refresh_delay)
        refresh_timeout = arguments.require_seconds("refresh_timeout", refresh_timeout)
        self._fallback_master = require_flag("fallback_master", fallback_master)
        self._weight = arguments.require_weight(master_as_replica_weight)
        self._max_lag = math.inf if max_lag is None else arguments.require_max_lag(max_lag)
        for scheme, adapter in self.adapters.items():
            if str(dsn).startswith(scheme):
                self.adapter = adapter
        self._targets = _targets(dsn, self.adapter, self.adapters)
        if isinstance(self.adapter, ChecksOptions):
            for target in self._targets.values():
                self.adapter.check_options(target, **options)
        self._dsn = dsn
        self._refresh_timeout = refresh_timeout
        self._options = MappingProxyType(options)
        self._lifecycle: Lifecycle[PoolT, ConnT] = Lifecycle(
            self.adapter,
            self._targets,
            options,
            arguments.require_policy(balancer_policy),
            refresh_delay=refresh_delay,
            refresh_timeout=refresh_timeout,
            abandon_timeout=arguments.require_seconds("abandon_timeout", abandon_timeout),
            stopwatch_window_size=require_count(
                "stopwatch_window_size", stopwatch_window_size, least=1
            ),
            fencing=require_flag("fencing", fencing),
        )
        self._checkouts = self._lifecycle.checkouts
        secrets = frozenset[str]().union(*(target.secrets for target in self._targets.values()))
        self._shared = Shared(self.adapter, secrets)
        self._acquires: _Acquires[PoolT, ConnT] = Acquire
        """What makes an acquire without a bound."""
        self._times: Times | None = None
        self._number = next(_numbers)
        self._has_sessions = False
        """A causal session was opened: from then on each acquire asks whether it is in one."""
        self._may_be_bounded = self._max_lag < math.inf
        """A read that names no bound may have one all the same."""
        slots = self._checkouts.slots
        self._masters = slots.queue(Request())
        self._reads = {
            (fallback, masters_too): slots.queue(
                Request(True, fallback_master=fallback, masters_too=masters_too)
            )
            for fallback in (False, True)
            for masters_too in (False, True)
        }
        self._bounded_reads = {
            queue: slots.bounded_queue(queue.request.with_bounds())
            for queue in self._reads.values()
        }
        self._bounds: dict[float, Bound] = {}
        """By ``max_lag``, in seconds."""

    # Connections

    def acquire(
        self,
        read_only: bool = False,
        fallback_master: bool | None = None,
        master_as_replica_weight: float | None = None,
        timeout: float | None = None,
        *,
        max_lag: float | None = None,
        after: WalPosition | str | None = None,
        patience: float | None = None,
        **kwargs: Any,
    ) -> AcquireContext[ConnT]:
        """A connection to a replica (``read_only``) or to a master: ``await`` it or ``async with``.

        None stands for the manager's own setting; ``kwargs`` go to the driver's acquire.

        A read with a bound, ``max_lag`` or ``after``, is served by a replica that is proven to keep
        it. Where there is none, the read waits for one, and the hosts are checked for it; with
        ``fallback_master`` a master serves instead.

        :param timeout: seconds for all of it: to wait for a host, for a slot, and to connect.
        :param max_lag: reads only: the replica has replayed everything that was committed so many
            seconds ago, or longer. `math.inf` for any replica.
        :param after: reads only: the replica has replayed everything up to this position, or its
            text; see `wal_position`.
        :param patience: with ``fallback_master``: seconds to wait for a replica that keeps the
            bound, before a master serves; 0 where it is not given.
        :raises TypeError: a flag that is no bool, a weight or a time that is no number; a position
            that is none.
        :raises ValueError: a weight outside [0, 1]; a negative timeout; a ``max_lag`` of 0 or less;
            ``patience`` without ``fallback_master``; a text that is no position's; what is for
            reads, given for a master. When awaited: the position is of another system.
        :raises AcquireTimeoutError: when awaited: nothing within the timeout. Says of each host why
            it did not serve; its cause is the driver's own error where one of these stood in the
            way.
        :raises PoolManagerClosedError: when awaited: the manager is closed, or closes meanwhile.
        """
        if read_only is False:
            if max_lag is not None or after is not None or patience is not None:
                raise ValueError("max_lag, after and patience are for reads: read_only=True")
            if master_as_replica_weight is not None:
                raise ValueError("master_as_replica_weight is for reads: read_only=True")
            if fallback_master is not None:
                require_flag("fallback_master", fallback_master)
            queue = self._masters
        elif read_only is True:
            queue = self._readers(fallback_master, master_as_replica_weight)
        else:
            raise not_a_flag("read_only", read_only)
        timeout = self._acquire_timeout if timeout is None else require_timeout(timeout)
        if max_lag is not None or after is not None or patience is not None or self._may_be_bounded:
            return self._bounded(queue, timeout, max_lag, after, patience, kwargs)
        return self._acquires(self._checkouts, queue, timeout, kwargs)

    def acquire_master(self, timeout: float | None = None, **kwargs: Any) -> AcquireContext[ConnT]:
        """`acquire` of a master."""
        timeout = self._acquire_timeout if timeout is None else require_timeout(timeout)
        return self._acquires(self._checkouts, self._masters, timeout, kwargs)

    def acquire_replica(
        self,
        fallback_master: bool | None = None,
        master_as_replica_weight: float | None = None,
        timeout: float | None = None,
        *,
        max_lag: float | None = None,
        after: WalPosition | str | None = None,
        patience: float | None = None,
        **kwargs: Any,
    ) -> AcquireContext[ConnT]:
        """`acquire` of a replica."""
        queue = self._readers(fallback_master, master_as_replica_weight)
        timeout = self._acquire_timeout if timeout is None else require_timeout(timeout)
        if max_lag is not None or after is not None or patience is not None or self._may_be_bounded:
            return self._bounded(queue, timeout, max_lag, after, patience, kwargs)
        return self._acquires(self._checkouts, queue, timeout, kwargs)

    def _readers(self, fallback_master: bool | None, weight: float | None) -> WaitQueue[PoolT]:
        """The queue of a read. Whether masters may serve it is decided by dice each time."""
        weight = self._weight if weight is None else arguments.require_weight(weight)
        if fallback_master is None:
            fallback_master = self._fallback_master
        elif fallback_master is not True and fallback_master is not False:
            raise not_a_flag("fallback_master", fallback_master)
        masters_too = weight > 0 and random.random() < weight
        return self._reads[fallback_master, masters_too]

    def _bounded(
        self,
        queue: WaitQueue[PoolT],
        timeout: float,
        max_lag: float | None,
        after: WalPosition | str | None,
        patience: float | None,
        kwargs: dict[str, Any],
    ) -> AcquireContext[ConnT]:
        """An acquire that may have a bound: one of its own, the manager's, or its session's."""
        reads = self._bounded_reads.get(queue)
        # Of a float alone: others may equal one.
        bound = self._bounds.get(max_lag) if type(max_lag) is float else None
        if bound and reads and after is None and patience is None and not self._has_sessions:
            # The usual case: what was asked for before.
            return BoundedAcquire(self._checkouts, reads, timeout, kwargs, bound)
        if patience is not None:
            patience = arguments.require_patience(patience, queue.request.fallback_master)
        session = current_session(self._number) if self._has_sessions else None
        if bound is None or after is not None:
            bound = self._bound(max_lag, after)
        is_bounded = bound.max_lag < math.inf or bound.after is not None or session is not None
        if reads is None or not is_bounded:
            return self._acquires(self._checkouts, queue, timeout, kwargs)
        if session is None and not patience:
            return BoundedAcquire(self._checkouts, reads, timeout, kwargs, bound)
        return LateBoundAcquire(
            self._checkouts, reads, timeout, kwargs, bound, patience or 0.0, session
        )

    def _bound(self, max_lag: float | None, after: WalPosition | str | None) -> Bound:
        """What is asked for. Kept where it will be asked for again: then it is proven quicker."""
        max_lag = self._max_lag if max_lag is None else arguments.require_max_lag(max_lag)
        if after is not None:
            return Bound(max_lag, arguments.require_position(after))
        bound = self._bounds.get(max_lag)
        if bound is None:
            bound = Bound(max_lag)
            if max_lag < math.inf and len(self._bounds) < _FEW:
                self._bounds[max_lag] = bound
        return bound

    def attempts(
        self,
        read_only: bool = False,
        fallback_master: bool | None = None,
        master_as_replica_weight: float | None = None,
        timeout: float = 30.0,
        *,
        max_lag: float | None = None,
        after: WalPosition | str | None = None,
        patience: float | None = None,
        idempotent: bool = False,
        **kwargs: Any,
    ) -> Attempts[ConnT]:
        """``async for attempt in`` this, ``async with attempt as connection``: the block is run
        again where that may help, and can't do anything twice.

        That is so where the connection or its host was lost, where the server took no writes any
        more, and after a serialization failure or a deadlock. A block that writes is a transaction,
        begun and committed around it, so that what failed before its COMMIT is undone; it must not
        end that by itself. Where the answer to the COMMIT is lost, the master is asked what became
        of it, or `CommitUnknown` is raised. A read has no transaction.

        The other arguments are those of `acquire`, whose errors come when the first attempt is
        entered.

        :param timeout: seconds for all of it: to wait for hosts, for the blocks, and between them.
            It has to be longer than a failover takes. A block that it interrupts loses its
            connection.
        :param idempotent: a block that writes may be run again though it may be committed; spares
            it one round trip.
        :raises TypeError: the timeout is no number; ``read_only`` or ``idempotent`` is no bool.
        :raises ValueError: the timeout is 0 or less, or not finite.
        :raises CommitUnknown: when a block ends: it may be committed, or not.
        :raises AcquireTimeoutError: when an attempt is entered: no connection until the timeout,
            and nothing went wrong before.
        :raises TimeoutError: when a block ends: the timeout has interrupted it, and nothing went
            wrong before.
        :raises Exception: out of time: the first error that a block was run again for; the later
            ones are its notes. Any other error of a block: at once.
        """
        acquires = partial(
            self.acquire,
            read_only,
            fallback_master,
            master_as_replica_weight,
            max_lag=max_lag,
            after=after,
            patience=patience,
            **kwargs,
        )
        return Attempts(
            self._shared,
            acquires,
            arguments.require_seconds("timeout", timeout),
            read_only=require_flag("read_only", read_only),
            idempotent=require_flag("idempotent", idempotent),
        )

    def is_lost(self, exc: BaseException) -> bool:
        """Whether an error means that its connection or host was lost, or that a master has become
        a replica (25006), so that another attempt may succeed.

        Looks through what an error was raised from (``__cause__``); of a group, all members have to
        mean that. False for what a manager says by itself: an `AcquireTimeoutError` has waited for
        another host already. False for timeouts, and for a query that the server cancelled.
        """
        return is_lost(exc, self.adapter)

    async def release(self, connection: ConnT, **kwargs: Any) -> None:
        """Give an awaited connection back; ``kwargs`` go to the driver's release.

        One that the manager has terminated meanwhile is given back already: nothing happens.

        :raises ValueError: the connection is not this manager's, or was given back before. A driver
            may have given the same object to somebody else by then: that is theirs now, and the
            task that had it before can't give it back again.
        """
        checkouts = self._checkouts
        checkout = checkouts.claim(connection)
        if checkouts.returns.tells and not self._has_sessions:
            self._acquires = OwnedAcquire
        if self._has_sessions and isinstance(checkout, CausalAcquire):
            await checkout.give_back(kwargs)
        else:
            await checkouts.release(checkout, kwargs)

    def acquire_from_pool(self, pool: PoolT, **kwargs: Any) -> AcquireContext[ConnT]:
        """A connection of this very pool, whatever its host's role; waits up to the acquire
        timeout for a slot there. ``kwargs`` go to the driver's acquire.

        To take one from the driver's pool directly is not counted, and may starve the monitor.

        :raises ValueError: the pool is not, or no longer, in service; also when awaited, where it
            is retired meanwhile.
        :raises AcquireTimeoutError: when awaited, as `acquire`.
        :raises PoolManagerClosedError: when awaited, as `acquire`.
        """
        if not self._lifecycle.is_closed:
            self._host_pool(pool)
        queue = self._checkouts.slots.queue(Request(pool_id=id(pool)))
        return self._acquires(self._checkouts, queue, self._acquire_timeout, kwargs)

    async def release_to_pool(self, connection: ConnT, pool: PoolT, **kwargs: Any) -> None:
        """Give back what `acquire_from_pool` gave.

        :raises ValueError: the connection is not this manager's, or not of this pool.
        """
        checkout = self._checkouts.holder(connection)
        if checkout is None or checkout.host_pool.pool is not pool:
            raise ValueError("not a connection of this pool, or given back already")
        await self.release(connection, **kwargs)

    def register_connection(self, connection: ConnT, pool: PoolT) -> None:
        """Tie a connection that was taken from the driver's pool by hand to that pool, so that
        `release` knows it. It counts as one that is out from now on. One that is known already
        stays as it is.

        :raises ValueError: the pool is not, or no longer, in service.
        """
        if self._checkouts.holder(connection) is None:
            host_pool = self._host_pool(pool)
            if not self.topology[host_pool.address].serving:
                raise ValueError(f"not in service: {self.topology[host_pool.address]}")
            self._checkouts.register(connection, host_pool)

    async def wal_position(self, connection: ConnT) -> WalPosition:
        """A position that covers everything that was committed on this connection, or was seen on
        it, before this call. One round trip, also within a transaction. For a read that has to see
        it: ``acquire_replica(after=position)``, also in another process, by its text.

        :raises ValueError: the server is a standby, or does not tell its position.
        :raises Exception: the driver's own errors: the connection was lost, the server refuses
            functions of the write-ahead log (as Aurora does), or the transaction has failed.
        """
        position = parse_position(await self.adapter.fetch_scalar(connection, POSITION_QUERY))
        if position is None:
            raise ValueError(
                "the server of this connection is a standby: nothing is committed there"
            )
        return position

    def causal(self, after: WalPosition | str | None = None) -> CausalScope:
        """``with`` this, every read sees what was written before: by blocks of `acquire_master` in
        it (and `release`), by tasks that were started in it, too, and up to ``after``.

        The `CausalSession` is what ``as`` gives; its `position` covers all that was written so far.
        Costs one more round trip for each block on a master. One that is nested begins with
        what the outer one has, and tells it what is written.

        :raises TypeError: ``after`` is no position.
        :raises ValueError: a text that is no position's.
        """
        position = None if after is None else arguments.require_position(after)
        self._has_sessions = self._may_be_bounded = True
        self._acquires = self._acquire_in_session
        return CausalScope(self._number, position)

    def _acquire_in_session(
        self,
        checkouts: Checkouts[PoolT, ConnT],
        queue: WaitQueue[PoolT],
        timeout: float,
        kwargs: dict[str, Any],
    ) -> Acquire[PoolT, ConnT]:
        """Where causal sessions are used: what writes in one, moves it on."""
        session = None if queue.request.read_only else current_session(self._number)
        if session is None:
            return OwnedAcquire(checkouts, queue, timeout, kwargs)
        return CausalAcquire(checkouts, queue, timeout, kwargs, session)

    def is_connection_closed(self, connection: ConnT) -> bool:
        """Whether the driver knows the connection to be closed; the server is not asked."""
        return self.adapter.is_connection_closed(connection)

    # Pools

    async def get_pool(self, read_only: bool, fallback_master: bool | None = None) -> PoolT:
        """The eligible pool with the most free connections; waits until there is one.

        :raises PoolManagerClosedError: the manager is closed, or closes meanwhile; so do
            `get_master_pools` and `get_replica_pools`.
        """
        pools = await self._pools(read_only, fallback_master)
        return max(pools, key=self.get_pool_freesize)

    async def get_master_pools(self) -> list[PoolT]:
        """The masters' pools, in the order of the DSN; waits until there is one."""
        return await self._pools(False, False)

    async def get_replica_pools(self, fallback_master: bool | None = None) -> list[PoolT]:
        """The replicas' pools, or with ``fallback_master`` the masters' while there is no
        replica; waits until there is one."""
        return await self._pools(True, fallback_master)

    async def _pools(self, read_only: bool, fallback_master: bool | None) -> list[PoolT]:
        require_flag("read_only", read_only)
        if fallback_master is None:
            fallback_master = self._fallback_master
        require_flag("fallback_master", fallback_master)
        request = Request(read_only=read_only, fallback_master=read_only and fallback_master)
        self._lifecycle.start()
        while not (hosts := eligible(self.topology, request)):
            await self._wait_for(lambda topology: bool(eligible(topology, request)), None, _always)
        return [cast(PoolT, host.pool) for host in hosts]

    def pool_is_master(self, pool: PoolT) -> bool:
        """By the current snapshot; False for a pool that is not in service."""
        return self._is_among(pool, self.topology.masters)

    def pool_is_replica(self, pool: PoolT) -> bool:
        """By the current snapshot; False for a pool that is not in service."""
        return self._is_among(pool, self.topology.replicas)

    def _is_among(self, pool: PoolT, hosts: Iterable[HostState]) -> bool:
        return not self._lifecycle.is_closed and any(host.pool is pool for host in hosts)

    def get_pool_freesize(self, pool: PoolT) -> int:
        """How many connections users could take from it now, opened or not yet.

        :raises ValueError: the pool is not, or no longer, in service.
        """
        return self._host_pool(pool).free

    def get_last_response_time(self, pool: PoolT) -> float | None:
        """The median of the last checks of the pool's host, in seconds; None before the first.

        :raises ValueError: the pool is not, or no longer, in service.
        """
        return self._host_pool(pool).response_time

    def _host_pool(self, pool: PoolT) -> HostPool[PoolT]:
        host_pool = self._checkouts.slots.host_pool_of(pool)
        if host_pool is None:
            raise ValueError("not a pool of this manager's, or retired meanwhile")
        return host_pool

    # What is known

    @property
    def dsn(self) -> str:
        """As it was given, the password included: not for logs."""
        return self._dsn

    @property
    def refresh_timeout(self) -> float:
        """As it was given, in seconds."""
        return self._refresh_timeout

    @property
    def pool_factory_kwargs(self) -> Mapping[str, Any]:
        """As they were given: not for logs, since there may be secrets among them."""
        return self._options

    @property
    def targets(self) -> Mapping[str, Target]:
        """What each host's connections are made from, by address, in the order of the DSN. Their
        texts show no password."""
        return MappingProxyType(self._targets)

    @property
    def database(self) -> str:
        """The database's name, for people: what is no plain name in it is hidden."""
        return next(iter(self._targets.values())).database

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that it belongs to; None before its first use. Other threads use the
        manager by this loop's `call_soon_threadsafe`; only `stats` they may ask by themselves."""
        return self._lifecycle.loop

    @property
    def is_closed(self) -> bool:
        """It was closed or terminated, or its ``async with`` block has ended: it hands out nothing
        more. True from the beginning of the end on."""
        return self._lifecycle.is_closed

    @property
    def topology(self) -> Topology:
        """The current snapshot: each host's role, last answer and last error."""
        return self._lifecycle.store.topology

    @property
    def pools(self) -> tuple[PoolT, ...]:
        """The pools in service, in the order of the DSN."""
        slots = self._checkouts.slots
        return tuple(s.pool for s in slots.host_pools if self.topology[s.address].serving)

    @property
    def master_pool_count(self) -> int:
        return 0 if self._lifecycle.is_closed else len(self.topology.masters)

    @property
    def replica_pool_count(self) -> int:
        return 0 if self._lifecycle.is_closed else len(self.topology.replicas)

    @property
    def available_pool_count(self) -> int:
        """Masters and replicas together."""
        return self.master_pool_count + self.replica_pool_count

    # What happens, and in numbers

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have ``listener(event)`` called with each event of `pyscopg2.core.events` from now on, in
        the order in which they happen. What is returned ends that; called again, it does nothing.

        It is called in the event loop's thread, between two steps of the manager's: it may use the
        manager, and must not block. What it raises is logged, the first time, and hurts nobody.
        """
        return self._lifecycle.listeners.subscribe(listener)

    def events(self, limit: int = 1000) -> EventStream:
        """The same for ``async for``, from now until the manager is closed.

        :param limit: so many events are kept for a reader who is slow. Then the oldest go, and an
            `EventsDropped` says how many.
        :raises TypeError: the limit is no whole number.
        :raises ValueError: it is less than 1.
        """
        limit = require_count("limit", limit, least=1)
        return EventStream(self._lifecycle.listeners, limit)

    def stats(self) -> Stats:
        """The numbers of this moment, in all and for each host. Threads may ask, too: those that
        collect metrics do; then it is of about one moment."""
        return count(self._checkouts, self._lifecycle.tallies, self._times)

    def record_times(self) -> None:
        """From now on, `stats` tells how long acquires take, and connections are used. That costs
        each acquire about a microsecond. Called again, it does nothing."""
        if self._times is None:
            self._times = Times()
            self.observe(self._times)

    def observe(self, observer: AcquireObserver) -> Callable[[], None]:
        """Have an observer told of each acquire from now on; what is returned ends that.

        For histograms and traces: it costs each acquire. What it raises is logged, the first time,
        and hurts nobody.
        """
        checkouts = self._checkouts
        known = () if checkouts.observers is None else checkouts.observers.observers
        checkouts.observers = Observers((*known, observer))

        def end() -> None:
            there = () if checkouts.observers is None else checkouts.observers.observers
            left = tuple(each for each in there if each is not observer)
            checkouts.observers = Observers(left) if left else None

        return end

    @property
    def check_context(self) -> contextvars.Context:
        """The context in which the hosts are checked. What is set there, by its `run`, the driver
        finds in checks, and not in users' queries: that no traces are made of them, say."""
        return self._lifecycle.check_context

    def explain(
        self,
        read_only: bool = False,
        fallback_master: bool | None = None,
        *,
        max_lag: float | None = None,
        after: WalPosition | str | None = None,
    ) -> Explanation:
        """Of each host whether it would serve this request now, and if not, why; in the words of
        `AcquireTimeoutError`. The arguments are those of `acquire`, but causal sessions are not
        asked.

        :raises TypeError: as `acquire`.
        :raises ValueError: likewise.
        """
        require_flag("read_only", read_only)
        if fallback_master is None:
            fallback_master = self._fallback_master
        require_flag("fallback_master", fallback_master)
        if not read_only and (max_lag is not None or after is not None):
            raise ValueError("max_lag and after are for reads: read_only=True")
        request = Request(read_only, fallback_master=read_only and fallback_master)
        bound = self._bound(max_lag, after) if read_only else None
        if bound is not None and (bound.max_lag < math.inf or bound.after is not None):
            request = request.with_bounds()
        else:
            bound = None
        slots = self._checkouts.slots
        queue = slots.queue(request)
        return explain(queue, slots, self.topology, self._targets, bound)

    # Waiting for hosts

    async def ready(
        self,
        masters_count: int | None = None,
        replicas_count: int | None = None,
        timeout: float = 10,
    ) -> None:
        """Wait until every host has answered, or until there are so many masters and replicas.

        :param timeout: seconds.
        :raises ValueError: one count without the other, or a negative one; more than the DSN has
            hosts, of which each has one role; a negative timeout.
        :raises NotReadyError: out of time; or at once where too many hosts fail in a way that
            waiting does not heal, with the driver's own error as the cause.
        :raises PoolManagerClosedError: the manager is closed, or closes meanwhile.
        """
        if masters_count is None and replicas_count is None:
            goal, least, blame = _all_ready, len(self._targets), _why_not_all_ready
        elif masters_count is None or replicas_count is None:
            raise ValueError("give both masters_count and replicas_count, or neither")
        else:
            self._require_hosts(masters_count, replicas_count)
            goal = partial(_roles_ready, masters_count, replicas_count)
            blame = partial(_why_not_roles_ready, masters_count)
            least = masters_count + replicas_count

        def over(topology: Topology) -> bool:
            if goal(topology):
                return True
            hopeless = [host for host in topology if host.hopeless]
            if hopeless and len(topology) - len(hopeless) < least:
                raise NotReadyError(f"no use in waiting: {topology}") from hopeless[0].error
            return False

        is_urgent = _is_missing(masters_count, replicas_count)
        await self._wait_for(over, require_timeout(timeout), is_urgent, blame)

    def forget(self, address: str) -> None:
        """Drop what is known of a host that is gone for good, so that it supersedes nobody any
        more. A host that is there tells the same again with its next check.

        :raises ValueError: the address (``host:port``) is not one of the DSN's.
        """
        if address not in self._targets:
            known = ", ".join(self._targets)
            raise ValueError(f"{address!r} is not an address of the DSN: {known}")
        self._lifecycle.store.forget(address)
        self._lifecycle.attention.check_soon(address)

    async def wait_next_pool_check(self, timeout: float = 10) -> None:
        """Wait until every host was checked anew, by a check that began after this call.

        :param timeout: seconds.
        :raises ValueError: it is negative, or not finite.
        :raises NotReadyError: out of time.
        :raises PoolManagerClosedError: the manager is closed, or closes meanwhile; so do all of
            these that wait.
        """
        require_timeout(timeout)
        self._lifecycle.start()
        now = self._lifecycle.store.next_serial()
        self._lifecycle.attention.check_all_soon()
        await self._wait_for(lambda topology: all(h.serial > now for h in topology), timeout)

    async def wait_all_ready(self) -> None:
        """Wait until every host's last check succeeded."""
        await self._wait_for(_all_ready)

    async def wait_masters_ready(self, masters_count: int) -> None:
        """Wait until there are at least so many masters. Errors as `ready`, but for time-outs."""
        self._require_hosts(masters_count, 0)
        await self._wait_for(
            partial(_roles_ready, masters_count, 0),
            None,
            _is_missing(masters_count, 0),
        )

    async def wait_replicas_ready(self, replicas_count: int) -> None:
        """Wait until there are at least so many replicas. Errors as `ready`, but for time-outs."""
        self._require_hosts(0, replicas_count)
        await self._wait_for(
            partial(_roles_ready, 0, replicas_count),
            None,
            _is_missing(0, replicas_count),
        )

    def _require_hosts(self, masters_count: int, replicas_count: int) -> None:
        require_count("masters_count", masters_count)
        require_count("replicas_count", replicas_count)
        needed = masters_count + replicas_count
        what = f"{masters_count} masters and {replicas_count} replicas"
        arguments.require_hosts(needed, what, self._targets)

    async def _wait_for(
        self,
        predicate: Predicate,
        timeout: float | None = None,
        is_urgent: Predicate = _never,
        blame: Callable[[Topology], BaseException | None] = lambda _: None,
    ) -> None:
        self._lifecycle.start()
        if predicate(self.topology):
            return
        scope = asyncio.timeout(timeout)
        try:
            async with scope:
                self._lifecycle.attention.hurry()
                await self._lifecycle.store.wait_for(predicate, is_urgent)
        except TimeoutError:
            if not scope.expired():
                raise
            cause = blame(self.topology)
            raise NotReadyError(f"not ready within {timeout:g} s: {self.topology}") from cause

    # Starting and ending

    async def __aenter__(self) -> Self:
        self._lifecycle.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            await self.close()
        else:
            await self.terminate()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        # The constructor may have failed.
        lifecycle: Lifecycle[PoolT, ConnT] | None = getattr(self, "_lifecycle", None)
        if lifecycle is not None and lifecycle.has_started and not lifecycle.is_closed:
            _warn(
                f"unclosed pool manager of {', '.join(self._targets)}", ResourceWarning, source=self
            )

    async def close(self, timeout: float = 10.0) -> None:
        """Refuse new acquires, wait for the connections that are out, close the pools.

        Acquires that wait for a connection raise `PoolManagerClosedError`. Safe to call twice and
        in any state. Cancelled, it terminates what is left.

        :param timeout: seconds to wait for connections that are out; the rest is terminated then.
            Drivers that do not close their pools have up to twice ``refresh_timeout`` more.
        :raises ValueError: it is negative, or not finite.
        """
        timeout = require_timeout(timeout)
        try:
            await self._lifecycle.end(timeout)
        except asyncio.CancelledError:
            await self._lifecycle.end(0)
            raise

    async def terminate(self) -> None:
        """End everything and wait for nobody: users of connections that are out get errors.

        Takes up to ``refresh_timeout`` seconds where a driver does not end at once.
        """
        await self._lifecycle.end(0)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__}: {self.topology}>"


class _Acquires(Protocol[PoolT, ConnT]):
    """Makes an acquire."""

    def __call__(
        self,
        checkouts: Checkouts[PoolT, ConnT],
        queue: WaitQueue[PoolT],
        timeout: float,
        kwargs: dict[str, Any],
        /,
    ) -> Acquire[PoolT, ConnT]: ...


def _all_ready(topology: Topology) -> bool:
    return all(host.ready for host in topology)


def _roles_ready(masters_count: int, replicas_count: int, topology: Topology) -> bool:
    return len(topology.masters) >= masters_count and len(topology.replicas) >= replicas_count


def _is_missing(masters_count: int | None, replicas_count: int | None) -> Predicate:
    """Whether a topology lacks a role of which there should be so many."""

    def is_missing(topology: Topology) -> bool:
        lacks_master = bool(masters_count) and not topology.masters
        return lacks_master or (bool(replicas_count) and not topology.replicas)

    return is_missing


def _always(_: Topology) -> bool:
    return True


def _why_not_all_ready(topology: Topology) -> BaseException | None:
    failing = (host for host in topology if host.error is not None)
    return next((host.error for host in sorted(failing, key=lambda host: not host.hopeless)), None)


def _why_not_roles_ready(masters_count: int, topology: Topology) -> BaseException | None:
    return blamed(topology, read_only=len(topology.masters) >= masters_count)


def _targets(dsn: str, adapter: object, schemes: Iterable[str]) -> dict[str, Target]:
    """By address, in the order of the DSN."""
    extra_params = adapter.extra_params if isinstance(adapter, TakesExtraParams) else False
    resolved = resolve(dsn, Surroundings.here(), extra_params=extra_params, schemes=schemes)
    for warning in resolved.warnings:
        log.logger.warning("%s", warning)
    return {target.address: target for target in resolved.targets}
