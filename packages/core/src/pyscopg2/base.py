"""The manager: a thin façade over the parts."""

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Generic, Self, cast

from pyscopg2.balancer_policy import BalancerPolicy, GreedyBalancerPolicy
from pyscopg2.core import journal
from pyscopg2.core.acquire import AcquireContext
from pyscopg2.core.adapter import Adapter, ChecksOptions, ConnT, PoolT, TakesExtraParams
from pyscopg2.core.background import Background
from pyscopg2.core.checkout import Checkouts
from pyscopg2.core.dsn import Target
from pyscopg2.core.errors import NotReadyError, PoolManagerClosedError
from pyscopg2.core.monitor import Monitor
from pyscopg2.core.queue import Queue
from pyscopg2.core.resolve import Surroundings, resolve
from pyscopg2.core.selection import Request, eligible
from pyscopg2.core.spell import Spell
from pyscopg2.core.store import Store
from pyscopg2.core.topology import Topology

__all__ = ("BasePoolManager",)

_WATCH = 0.05
"""Seconds between two looks at the connections that the monitors keep."""

_TARGET_OPTIONS = frozenset({"dsn", "conninfo", "host", "hostaddr", "port"})


class BasePoolManager(Generic[PoolT, ConnT]):
    """From one multi-host DSN: a driver pool per host, and the right one's connections.

    Each adapter package has a `PoolManager`, which is this class with its `adapter` filled in. It
    may be constructed anywhere, also before an event loop runs; it starts on first use, in the
    loop that uses it first, and belongs to that loop from then on (`RuntimeError` in another).

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
        options = dict(pool_factory_kwargs or {})
        if misplaced := _TARGET_OPTIONS & options.keys():
            raise TypeError(f"pool_factory_kwargs: {', '.join(sorted(misplaced))} is for the DSN")
        self._acquire_timeout = _seconds("acquire_timeout", acquire_timeout, zero=True)
        self._refresh_delay = _seconds("refresh_delay", refresh_delay)
        self._refresh_timeout = _seconds("refresh_timeout", refresh_timeout)
        self._fallback_master = fallback_master
        self._weight = _weight(master_as_replica_weight)
        for scheme, adapter in self.adapters.items():
            if str(dsn).startswith(scheme):
                self.adapter = adapter
        self._targets = _targets(dsn, self.adapter, self.adapters)
        if isinstance(self.adapter, ChecksOptions):
            for target in self._targets.values():
                self.adapter.check_options(target, **options)
        self._dsn = dsn
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._background = Background()
        self._store = Store(Topology.of(tuple(self._targets), fencing=fencing))
        self._store.subscribe(journal.write)
        policy = _policy(balancer_policy)
        self._checkouts: Checkouts[PoolT, ConnT] = Checkouts(
            self.adapter,
            self._store,
            policy.choose,
            self._background,
            start=self._start,
            suspect=self._check_soon,
            demand=self._hurry,
            refresh_timeout=self._refresh_timeout,
            abandon_timeout=_seconds("abandon_timeout", abandon_timeout),
            timing=getattr(policy, "needs_latency", False),
        )
        self._masters = self._checkouts.places.queue(Request())
        self._reads = {
            (fallback, masters_too): self._checkouts.places.queue(
                Request(True, fallback_master=fallback, masters_too=masters_too)
            )
            for fallback in (False, True)
            for masters_too in (False, True)
        }
        self._monitors = {
            address: Monitor(
                target,
                self.adapter,
                options,
                self._store,
                self._background,
                hurried=self._is_hurried,
                overdue=self._suspect_role,
                retired=self._checkouts.retired,
                refresh_delay=self._refresh_delay,
                refresh_timeout=self._refresh_timeout,
                stopwatch_window_size=stopwatch_window_size,
            )
            for address, target in self._targets.items()
        }
        self._tasks: list[asyncio.Task[None]] = []

    # Connections

    def acquire(
        self,
        read_only: bool = False,
        fallback_master: bool | None = None,
        master_as_replica_weight: float | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> AcquireContext[PoolT, ConnT]:
        """A connection to a replica (``read_only``) or to a master: ``await`` it or ``async with``.

        None stands for the manager's own setting; ``kwargs`` go to the driver's acquire.

        :param timeout: seconds for all of it: to wait for a host, for a place, and to connect.
        :raises ValueError: a weight outside [0, 1], or one given for a master; a negative timeout.
        :raises AcquireTimeoutError: when awaited: nothing within the timeout. Shows each host's
            state; its cause is the driver's own error where there is one.
        :raises PoolManagerClosedError: when awaited: the manager is closed, or closes meanwhile.
        """
        if read_only:
            queue = self._readers(fallback_master, master_as_replica_weight)
        elif master_as_replica_weight is None:
            queue = self._masters
        else:
            raise ValueError("master_as_replica_weight is for reads: read_only=True")
        timeout = self._acquire_timeout if timeout is None else _timeout(timeout)
        return AcquireContext(self._checkouts, queue, timeout, kwargs)

    def acquire_master(
        self, timeout: float | None = None, **kwargs: Any
    ) -> AcquireContext[PoolT, ConnT]:
        """`acquire` of a master."""
        timeout = self._acquire_timeout if timeout is None else _timeout(timeout)
        return AcquireContext(self._checkouts, self._masters, timeout, kwargs)

    def acquire_replica(
        self,
        fallback_master: bool | None = None,
        master_as_replica_weight: float | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> AcquireContext[PoolT, ConnT]:
        """`acquire` of a replica."""
        queue = self._readers(fallback_master, master_as_replica_weight)
        timeout = self._acquire_timeout if timeout is None else _timeout(timeout)
        return AcquireContext(self._checkouts, queue, timeout, kwargs)

    def _readers(self, fallback_master: bool | None, weight: float | None) -> Queue[PoolT]:
        """The queue of a read. Whether masters may serve it is decided by dice each time."""
        weight = self._weight if weight is None else _weight(weight)
        if fallback_master is None:
            fallback_master = self._fallback_master
        masters_too = weight > 0 and random.random() < weight
        return self._reads[bool(fallback_master), masters_too]

    async def release(self, connection: ConnT, **kwargs: Any) -> None:
        """Give an awaited connection back; ``kwargs`` go to the driver's release.

        One that the manager has terminated meanwhile is given back already: nothing happens.

        :raises ValueError: the connection is not this manager's, or was given back before.
        """
        checkout = self._checkouts.holder(connection)
        if checkout is None:
            raise ValueError("not a connection of this manager's, or given back already")
        await self._checkouts.release(checkout, kwargs)

    def acquire_from_pool(self, pool: PoolT, **kwargs: Any) -> AcquireContext[PoolT, ConnT]:
        """A connection of this very pool, whatever its host's role; waits up to the acquire
        timeout for a place there. ``kwargs`` go to the driver's acquire.

        To take one from the driver's pool directly is not counted, and may starve the monitor.

        :raises ValueError: the pool is not, or no longer, in service; also when awaited, where it
            is retired meanwhile.
        :raises AcquireTimeoutError: when awaited, as `acquire`.
        :raises PoolManagerClosedError: when awaited, as `acquire`.
        """
        if not self._closed:
            self._spell(pool)
        queue = self._checkouts.places.queue(Request(pool_id=id(pool)))
        return AcquireContext(self._checkouts, queue, self._acquire_timeout, kwargs)

    async def release_to_pool(self, connection: ConnT, pool: PoolT, **kwargs: Any) -> None:
        """Give back what `acquire_from_pool` gave.

        :raises ValueError: the connection is not this manager's, or not of this pool.
        """
        checkout = self._checkouts.holder(connection)
        if checkout is None or checkout.spell.pool is not pool:
            raise ValueError("not a connection of this pool, or given back already")
        await self._checkouts.release(checkout, kwargs)

    def register_connection(self, connection: ConnT, pool: PoolT) -> None:
        """Tie a connection that was taken from the driver's pool by hand to that pool, so that
        `release` knows it. It counts as one that is out from now on. One that is known already
        stays as it is.

        :raises ValueError: the pool is not, or no longer, in service.
        """
        if self._checkouts.holder(connection) is None:
            spell = self._spell(pool)
            if not self.topology[spell.address].serving:
                raise ValueError(f"not in service: {self.topology[spell.address]}")
            self._checkouts.register(connection, spell)

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
        if fallback_master is None:
            fallback_master = self._fallback_master
        request = Request(read_only=read_only, fallback_master=read_only and fallback_master)
        self._start()
        while not (hosts := eligible(self.topology, request)):
            await self._wait_for(lambda topology: bool(eligible(topology, request)))
        return [cast(PoolT, host.pool) for host in hosts]

    def pool_is_master(self, pool: PoolT) -> bool:
        """By the current snapshot; False for a pool that is not in service."""
        return not self._closed and any(host.pool is pool for host in self.topology.masters)

    def pool_is_replica(self, pool: PoolT) -> bool:
        """By the current snapshot; False for a pool that is not in service."""
        return not self._closed and any(host.pool is pool for host in self.topology.replicas)

    def get_pool_freesize(self, pool: PoolT) -> int:
        """How many connections users could take from it now, opened or not yet.

        :raises ValueError: the pool is not, or no longer, in service.
        """
        return self._spell(pool).free

    def get_last_response_time(self, pool: PoolT) -> float | None:
        """The median of the last checks of the pool's host, in seconds; None before the first.

        :raises ValueError: the pool is not, or no longer, in service.
        """
        return self._spell(pool).response_time

    def _spell(self, pool: PoolT) -> Spell[PoolT]:
        spell = self._checkouts.places.spell_of(pool)
        if spell is None:
            raise ValueError("not a pool of this manager's, or retired meanwhile")
        return spell

    # What is known

    @property
    def dsn(self) -> str:
        """As it was given, the password included: not for logs."""
        return self._dsn

    @property
    def topology(self) -> Topology:
        """The current snapshot: each host's role, last answer and last error."""
        return self._store.topology

    @property
    def pools(self) -> tuple[PoolT, ...]:
        """The pools in service, in the order of the DSN."""
        places = self._checkouts.places
        return tuple(s.pool for s in places.spells if self.topology[s.address].serving)

    @property
    def master_pool_count(self) -> int:
        return 0 if self._closed else len(self.topology.masters)

    @property
    def replica_pool_count(self) -> int:
        return 0 if self._closed else len(self.topology.replicas)

    @property
    def available_pool_count(self) -> int:
        """Masters and replicas together."""
        return self.master_pool_count + self.replica_pool_count

    # Waiting for hosts

    async def ready(
        self,
        masters_count: int | None = None,
        replicas_count: int | None = None,
        timeout: float = 10,
    ) -> None:
        """Wait until every host has answered, or until there are so many masters and replicas.

        :param timeout: seconds.
        :raises ValueError: one count without the other, or a negative one; a negative timeout.
        :raises NotReadyError: out of time; or at once where too many hosts fail in a way that
            waiting does not heal, with the driver's own error as the cause.
        :raises PoolManagerClosedError: the manager is closed, or closes meanwhile.
        """
        if masters_count is None and replicas_count is None:
            goal, least = _all_ready, len(self._targets)
        elif masters_count is None or replicas_count is None:
            raise ValueError("give both masters_count and replicas_count, or neither")
        else:
            _count("masters_count", masters_count)
            _count("replicas_count", replicas_count)
            goal = partial(_roles_ready, masters_count, replicas_count)
            least = masters_count + replicas_count

        def over(topology: Topology) -> bool:
            if goal(topology):
                return True
            hopeless = [host for host in topology if host.hopeless]
            if hopeless and len(topology) - len(hopeless) < least:
                raise NotReadyError(f"no use in waiting: {topology}") from hopeless[0].error
            return False

        await self._wait_for(over, _timeout(timeout))

    async def wait_next_pool_check(self, timeout: float = 10) -> None:
        """Wait until every host was checked anew, by a check that began after this call.

        :param timeout: seconds.
        :raises ValueError: it is negative, or not finite.
        :raises NotReadyError: out of time.
        :raises PoolManagerClosedError: the manager is closed, or closes meanwhile; so do all of
            these that wait.
        """
        _timeout(timeout)
        self._start()
        now = self._store.next_serial()
        for monitor in self._monitors.values():
            monitor.check_soon()
        await self._wait_for(lambda topology: all(h.serial > now for h in topology), timeout)

    async def wait_all_ready(self) -> None:
        """Wait until every host's last check succeeded."""
        await self._wait_for(_all_ready)

    async def wait_masters_ready(self, masters_count: int) -> None:
        """Wait until there are at least so many masters."""
        await self._wait_for(partial(_roles_ready, _count("masters_count", masters_count), 0))

    async def wait_replicas_ready(self, replicas_count: int) -> None:
        """Wait until there are at least so many replicas."""
        await self._wait_for(partial(_roles_ready, 0, _count("replicas_count", replicas_count)))

    async def _wait_for(
        self, predicate: Callable[[Topology], bool], timeout: float | None = None
    ) -> None:
        self._start()
        if predicate(self.topology):
            return
        scope = asyncio.timeout(timeout)
        try:
            async with scope:
                self._hurry()
                await self._store.wait_for(predicate)
        except TimeoutError as exc:
            if not scope.expired():
                raise
            cause = next((host.error for host in self.topology if host.hopeless), exc)
            raise NotReadyError(f"not ready within {timeout:g} s: {self.topology}") from cause

    # Starting and ending

    async def __aenter__(self) -> Self:
        self._start()
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

    async def close(self, timeout: float = 10.0) -> None:
        """Refuse new acquires, wait for the connections that are out, close the pools.

        Those who wait for a connection get `PoolManagerClosedError`. Safe to call twice and in any
        state. Cancelled, it terminates what is left.

        :param timeout: seconds to wait for connections that are out; the rest is terminated then.
            Drivers that do not close their pools have up to twice ``refresh_timeout`` more.
        :raises ValueError: it is negative, or not finite.
        """
        timeout = _timeout(timeout)
        try:
            await self._end(timeout)
        except asyncio.CancelledError:
            await self._end(0)
            raise

    async def terminate(self) -> None:
        """End everything and wait for nobody: users of connections that are out get errors.

        Takes up to ``refresh_timeout`` seconds where a driver does not end at once.
        """
        await self._end(0)

    async def _end(self, timeout: float) -> None:
        if self._loop is None:
            self._closed = True
        if self._loop is None or self._loop.is_closed():
            # Never started, or everything ended with its event loop.
            return
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("this pool manager belongs to another event loop: close it there")
        error = PoolManagerClosedError("the pool manager is closed")
        self._closed = True
        for monitor in self._monitors.values():
            monitor.stop()
        for task in self._tasks:
            task.cancel()
            self._background.adopt(task)
        self._store.close(error)
        self._checkouts.close(error, timeout)
        await self._checkouts.ended()
        # A pool that does not close in time is terminated then, which takes its time, too.
        await self._background.drain(self._refresh_timeout * (2 if timeout else 1))

    def _start(self) -> None:
        """On every use: start in the running loop, the first time; refuse another loop's use."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise PoolManagerClosedError("the pool manager is closed")
        if loop is self._loop:
            return
        if self._loop is not None:
            raise RuntimeError(
                "this pool manager belongs to another event loop: make one manager per loop"
            )
        self._loop = loop
        self._checkouts.open(loop)
        self._tasks = [
            loop.create_task(monitor.run(), name=f"pyscopg2 monitor of {address}")
            for address, monitor in self._monitors.items()
        ]
        self._watch()

    def _watch(self) -> None:
        """One timer for all monitors: who among them has lost its connection between checks?"""
        if self._loop is not None and not self._closed:
            for monitor in self._monitors.values():
                monitor.look()
            self._loop.call_later(_WATCH, self._watch)

    def _suspect_role(self, address: str) -> None:
        self._checkouts.places.mark_overdue(address)
        self._hurry()

    def _check_soon(self, address: str) -> None:
        self._monitors[address].check_soon()

    def _hurry(self) -> None:
        for monitor in self._monitors.values():
            monitor.hurry()

    def _is_hurried(self) -> bool:
        places = self._checkouts.places
        return self._store.awaited or places.starving or places.doubtful

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__}: {self.topology}>"


def _all_ready(topology: Topology) -> bool:
    return all(host.answering for host in topology)


def _roles_ready(masters_count: int, replicas_count: int, topology: Topology) -> bool:
    return len(topology.masters) >= masters_count and len(topology.replicas) >= replicas_count


def _targets(dsn: str, adapter: object, schemes: Iterable[str]) -> dict[str, Target]:
    """By address, in the order of the DSN."""
    extra_params = adapter.extra_params if isinstance(adapter, TakesExtraParams) else False
    resolved = resolve(dsn, Surroundings.here(), extra_params=extra_params, schemes=schemes)
    for warning in resolved.warnings:
        journal.logger.warning("%s", warning)
    return {target.address: target for target in resolved.targets}


def _policy(policy: BalancerPolicy | type[BalancerPolicy]) -> BalancerPolicy:
    made = policy() if isinstance(policy, type) else policy
    if not callable(getattr(made, "choose", None)):
        raise TypeError(f"balancer_policy has no method `choose`: {policy!r}")
    return made


def _seconds(name: str, value: float, *, zero: bool = False) -> float:
    _require_number(name, value, int, float)
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be {'at least' if zero else 'above'} 0, not {value}")
    return value


def _timeout(value: float) -> float:
    return _seconds("timeout", value, zero=True)


def _weight(value: float) -> float:
    _require_number("master_as_replica_weight", value, int, float)
    if not 0 <= value <= 1:
        raise ValueError(f"master_as_replica_weight must be within [0, 1], not {value}")
    return value


def _count(name: str, value: int) -> int:
    _require_number(name, value, int)
    if value < 0:
        raise ValueError(f"{name} must not be negative: {value}")
    return value


def _require_number(name: str, value: object, *types: type) -> None:
    if isinstance(value, bool) or not isinstance(value, types):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
