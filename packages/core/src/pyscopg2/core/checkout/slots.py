"""The slots for users on all hosts, and which of the waiters gets one.

Slots are counted here, and nowhere else. Everything happens in the event loop's thread, and no
await stands between a decision and the count that follows from it. So no slot is free while a
waiter could have it, and none is given out twice.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, cast

from pyscopg2.balancer_policy.base import BalancerPolicy
from pyscopg2.core.adapter.protocol import Adapter, PoolT, Reserves
from pyscopg2.core.checkout.bound import Bound
from pyscopg2.core.checkout.connect_trial import RETRY_GAP
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.proofs import Proofs
from pyscopg2.core.checkout.request import Request
from pyscopg2.core.checkout.selection import candidates
from pyscopg2.core.checkout.wait_queue import BoundedQueue, Waiter, WaitQueue
from pyscopg2.core.checkout.wait_queues import WaitQueues
from pyscopg2.core.monitoring.attention import Attention
from pyscopg2.core.statistics.tally import Tallies
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.topology.host_state import HostState
from pyscopg2.core.topology.role_query import Answer
from pyscopg2.core.topology.snapshot import Change, Topology

PATIENCE = 0.05
"""Seconds to wait for a slot before a host that gave nothing back meanwhile is suspected."""


class Slots(Generic[PoolT]):
    """Gives out slots by the rules of `selection` and the policy's choice."""

    def __init__(
        self,
        adapter: Adapter[PoolT, Any],
        topology: Topology,
        policy: BalancerPolicy,
        attention: Attention,
        tallies: Tallies,
        emptied: Callable[[HostPool[PoolT]], None],
    ) -> None:
        """``emptied`` is told of a retired host pool whose last slot came back."""
        self._adapter = adapter
        self._topology = topology
        self._proofs = Proofs(topology)
        self._choose = policy.choose
        self._attention = attention
        self._tallies = tallies
        self._emptied = emptied
        self._host_pools: dict[str, HostPool[PoolT]] = {}
        self._queues: dict[Request, WaitQueue[PoolT]] = {}
        self.wait_queues: WaitQueues[PoolT] = WaitQueues(attention)
        self._patrol: asyncio.TimerHandle | None = None
        """Goes off where somebody has waited for `PATIENCE`."""

    @property
    def host_pools(self) -> list[HostPool[PoolT]]:
        """Those not retired, in the order of the DSN."""
        present = (self._host_pools.get(host.address) for host in self._topology)
        return [host_pool for host_pool in present if host_pool is not None]

    def host_pool_of(self, pool: PoolT) -> HostPool[PoolT] | None:
        """The present one with this driver pool; None where there is none any more."""
        return next((each for each in self._host_pools.values() if each.pool is pool), None)

    def queue(self, request: Request) -> WaitQueue[PoolT]:
        """That of all acquires with this request."""
        queue = self._queues.get(request)
        if queue is None:
            queue = self._queues[request] = (
                BoundedQueue(request, self._proofs) if request.bounded else WaitQueue(request)
            )
        return queue

    def bounded_queue(self, request: Request) -> BoundedQueue[PoolT]:
        """That of all reads with this request that have bounds."""
        return cast("BoundedQueue[PoolT]", self.queue(request))

    def candidates(self, queue: WaitQueue[PoolT]) -> list[HostPool[PoolT]]:
        """The host pools that may serve it now, with a free slot or without."""
        if queue.candidates is None:
            queue.reconsider(candidates(self._topology, self._host_pools, queue.request))
        return cast("list[HostPool[PoolT]]", queue.candidates)

    # Taking and giving back

    def take(self, queue: WaitQueue[PoolT]) -> HostPool[PoolT] | None:
        """Choose a host and count a slot on it, in one step; None where no slot is free.

        `ValueError`: the one pool that is asked for has been retired.
        """
        host_pool = queue.sole
        if host_pool is not None:
            if host_pool.in_use >= host_pool.limit:
                return None
            host_pool.in_use += 1
            return host_pool
        able = queue.candidates
        if able is None:
            able = self.candidates(queue)
        free = [each for each in able if each.in_use < each.limit]
        if len(free) > 1:
            host_pool = self._choose(free)
            if host_pool not in free:
                raise _no_candidate(host_pool)
        elif free:
            host_pool = free[0]
        elif queue.retired:
            raise _retired()
        else:
            return None
        host_pool.in_use += 1
        return host_pool

    def take_fresh(self, queue: BoundedQueue[PoolT], bound: Bound) -> HostPool[PoolT] | None:
        """`take`, of a host that is proven to keep the bound. Where there is none, proofs are asked
        for.

        `ValueError`: the position that is asked for is of another system.
        """
        able = queue.recalled(bound)
        if able is None:
            self._consider(queue, bound)
            able = queue.proven(bound)
        if not able:
            self._attention.prove(queue)
        free = [each for each in able if each.in_use < each.limit]
        if not free:
            return None
        host_pool = self._choose(free) if len(free) > 1 else free[0]
        if host_pool not in free:
            raise _no_candidate(host_pool)
        host_pool.in_use += 1
        return host_pool

    def _consider(self, queue: BoundedQueue[PoolT], bound: Bound) -> None:
        """What there is to do once for each snapshot, or little more often."""
        refusal = self._proofs.refusal(bound)
        if refusal is not None:
            raise refusal
        self.candidates(queue)
        if bound.max_lag < math.inf:
            self._attention.keep_proving(bound.max_lag, _now())

    def is_fresh(
        self, queue: BoundedQueue[PoolT], bound: Bound, host_pool: HostPool[PoolT]
    ) -> bool:
        """Whether a host may serve a request with this bound still, and what is known of it is of
        the server that is there: not where the connection over which it told that is closed."""
        if queue.candidates is None:
            self.candidates(queue)
        if host_pool not in queue.proven(bound):
            return False
        host = self._topology[host_pool.address]
        if host.is_heard is None or host.is_heard():
            return True
        # Its monitor looks at that connection all the time, and checks the host soon.
        self._distrust(host)
        return False

    def _distrust(self, host: HostState) -> None:
        self._proofs.distrust(host)
        for queue in self._queues.values():
            if isinstance(queue, BoundedQueue):
                queue.last = None

    def is_fresh_there(self, bound: Bound, host_pool: HostPool[PoolT], answer: Answer) -> bool:
        """Whether the server keeps the bound that said this over a user's connection. Where it does
        not, its host is left alone until its next check."""
        if bound.is_met(self._topology.told(answer), stopwatch.clock()):
            return True
        self._distrust(self._topology[host_pool.address])
        return False

    def add(self, host_pool: HostPool[PoolT]) -> None:
        """Count a connection that is out though nobody took a slot for it."""
        host_pool.in_use += 1

    def free(self, host_pool: HostPool[PoolT]) -> None:
        """Give a slot back: from hand to hand where somebody waits for it."""
        wait_queues = self.wait_queues
        if wait_queues.occupied and host_pool.in_use <= host_pool.limit:
            waiter = wait_queues.pop(host_pool)
            if waiter is not None:
                host_pool.moving = True
                waiter.set_result(host_pool)
                return
        host_pool.in_use -= 1
        if host_pool.retired and not host_pool.in_use:
            self._emptied(host_pool)

    # Waiting

    def join(
        self, queue: WaitQueue[PoolT], ticket: int, when: float, bound: Bound | None = None
    ) -> Waiter:
        """Wait for what `take` did not give: becomes the host pool on which a slot is counted for
        the waiter already; None when its time is up."""
        waiter = self.wait_queues.join(queue, ticket, when, bound)
        if len(queue.waiters) == 1:
            self._begin_waiting(queue)
        return waiter

    def rejoin(
        self, queue: WaitQueue[PoolT], ticket: int, when: float, bound: Bound | None = None
    ) -> Waiter:
        """`join` where the ticket says."""
        waiter = self.wait_queues.rejoin(queue, ticket, when, bound)
        self._begin_waiting(queue)
        return waiter

    def leave(self, queue: WaitQueue[PoolT], waiter: Waiter) -> None:
        """Wait no longer, because what `join` gave was awaited, and raised. A slot that was handed
        over in the same turn goes to the next."""
        self.wait_queues.leave(queue, waiter)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            host_pool = waiter.result()
            if host_pool is not None:
                self.free(host_pool)

    def _begin_waiting(self, queue: WaitQueue[PoolT]) -> None:
        if not self.candidates(queue):
            self._attention.miss(queue)
        if self._patrol is None:
            self._patrol_later()

    def _patrol_later(self) -> None:
        for host_pool in self._host_pools.values():
            host_pool.moving = False
        loop = asyncio.get_running_loop()
        self._patrol = loop.call_later(PATIENCE, self._ask_for_stuck_hosts)

    def _ask_for_stuck_hosts(self) -> None:
        """Have the hosts checked that somebody waits for and that gave nothing back meanwhile."""
        self._patrol = None
        if not self.wait_queues.occupied:
            return
        for queue in self.wait_queues.occupied:
            for host_pool in self.candidates(queue):
                if not host_pool.moving:
                    self._attention.check_now_and_then(host_pool.address)
        self._patrol_later()

    # What comes of connects: the events of `ConnectTrial`

    def connect_failed(self, host_pool: HostPool[PoolT], failure: Exception) -> None:
        """The slot of the connect is in use still."""
        host_pool.tally.failed_connects += 1
        if not host_pool.retired:
            host_pool.connect_failed(host_pool.in_use, _now(), failure)
            self._fall_back(host_pool)

    def connect_slow(self, host_pool: HostPool[PoolT], queue: WaitQueue[PoolT]) -> bool:
        """A connect takes very long, whatever the host's checks say. True where another host has
        a slot for the acquire that waits for it."""
        host_pool.tally.failed_connects += 1
        if not host_pool.retired:
            host_pool.connect_slow(host_pool.in_use, _now())
            self._fall_back(host_pool)
        others = (each for each in self.candidates(queue) if each is not host_pool)
        return any(each.in_use < each.limit for each in others)

    def _fall_back(self, host_pool: HostPool[PoolT]) -> None:
        self._reconsider()
        self._attention.check_soon(host_pool.address)
        # Where this was the last prompt host, those that are overdue become candidates.
        self._serve_all()

    def connected(self, host_pool: HostPool[PoolT]) -> None:
        """A connect succeeded."""
        host_pool.tally.connects += 1
        if not host_pool.retired:
            was_suspended = host_pool.suspended
            if host_pool.connected(host_pool.in_use):
                self._let_more_in(host_pool, was_suspended)

    def acquired(self, host_pool: HostPool[PoolT]) -> None:
        """A connection came out of it, on trial as it is."""
        if not host_pool.retired:
            was_suspended = host_pool.suspended
            if host_pool.acquired(host_pool.in_use, _now()):
                self._let_more_in(host_pool, was_suspended)

    def _let_more_in(self, host_pool: HostPool[PoolT], was_suspended: bool) -> None:
        if was_suspended:
            self._reconsider()
            self._serve_all()
        else:
            self._serve(host_pool)

    # Following the topology

    def follow(self, after: Topology, changes: Sequence[Change]) -> list[HostPool[PoolT]]:
        """Begin and retire host pools, and serve anew; returns those retired now."""
        retired: list[HostPool[PoolT]] = []
        late: list[HostPool[PoolT]] = []
        changed = after.settled is not self._topology.settled
        self._topology = self._proofs.topology = after
        for old, new in changes:
            changed |= old.role is not new.role or old.overdue is not new.overdue
            if old.pool is not new.pool:
                changed = True
                retired += self._turn_over(new)
            host_pool = self._host_pools.get(new.address)
            if host_pool is not None:
                changed |= self._refresh(host_pool, old, new)
                if new.overdue and not old.overdue:
                    late.append(host_pool)
        if changed:
            self._reconsider()
            for host_pool in late:
                self._interrupt_connects(host_pool)
            self._serve_all()
        self._follow_proofs(serve=not changed)
        return retired

    def close(self, error: Callable[[], Exception]) -> list[HostPool[PoolT]]:
        """Send all waiters away, each with an ``error()`` of its own, and retire all host
        pools, which it returns."""
        if self._patrol is not None:
            self._patrol.cancel()
        self.wait_queues.dissolve(error)
        retired = list(self._host_pools.values())
        self._host_pools.clear()
        self._reconsider()
        for host_pool in retired:
            host_pool.retire(_now())
        return retired

    def _turn_over(self, host: HostState) -> Iterable[HostPool[PoolT]]:
        """The host has another pool than before, or none."""
        host_pool = self._host_pools.pop(host.address, None)
        if host.pool is not None:
            pool = cast(PoolT, host.pool)
            size = self._size(host.pool_size)
            tally = self._tallies.hosts[host.address]
            self._host_pools[host.address] = HostPool(host.address, pool, size, self._proofs, tally)
        if host_pool is None:
            return ()
        host_pool.retire(_now())
        queue = self._queues.pop(Request(pool_id=id(host_pool.pool)), None)
        if queue is not None:
            queue.retired = True
            queue.reconsider([])
            self.wait_queues.turn_away(queue, _retired)
        return (host_pool,)

    def _size(self, size: int | None) -> int | None:
        """How many of a pool's connections users may have; None: no limit."""
        return size if size is None or isinstance(self._adapter, Reserves) else size - 1

    def _refresh(self, host_pool: HostPool[PoolT], old: HostState, new: HostState) -> bool:
        """Bring a host pool up to date; True where more may come there."""
        host_pool.response_time = new.response_time
        is_new = new.serial != old.serial or new.pool is not old.pool
        if new.round_trip is not None and new.answering and is_new:
            host_pool.time_check(new.round_trip, stopwatch.clock())
        if old.role is not new.role:
            # Acquires that are still connecting asked for the role that the host had.
            host_pool.interrupt_all(_now())
        if host_pool.limit == host_pool.size or not new.answering or new.serial == old.serial:
            return False
        if host_pool.answered(host_pool.in_use, _now()):
            return True
        if host_pool.suspended or self.wait_queues.occupied:
            when = host_pool.tried_at + RETRY_GAP
            loop = asyncio.get_running_loop()
            loop.call_at(when, self._attention.check_soon, host_pool.address)
        return False

    def _interrupt_connects(self, host_pool: HostPool[PoolT]) -> None:
        """The host is overdue: where there are others, acquires that are connecting to it go
        there. Where it was the last prompt one, all that are overdue are candidates again."""
        for request in host_pool.connecting:
            if host_pool not in self.candidates(self.queue(request)):
                host_pool.interrupt(request, _now())

    # Serving the waiters

    def _reconsider(self) -> None:
        """It has changed which host pools may serve whom."""
        for queue in self._queues.values():
            queue.reconsider(None)
        for queue in self.wait_queues.occupied:
            if self.candidates(queue):
                self._attention.found(queue)
            else:
                self._attention.miss(queue)

    def _serve(self, host_pool: HostPool[PoolT]) -> None:
        """Hand the free slots of one host pool to the first waiters that it may serve."""
        while host_pool.in_use < host_pool.limit:
            waiter = self.wait_queues.pop(host_pool)
            if waiter is None:
                return
            host_pool.in_use += 1
            waiter.set_result(host_pool)

    def _serve_all(self) -> None:
        """Hand out all free slots, distributed as the policy says."""
        while any(self._try_to_serve(queue, head) for queue, head in self.wait_queues.heads()):
            pass

    def _follow_proofs(self, *, serve: bool) -> None:
        """Hosts have answered: those who wait with a bound may be served, or are not yet."""
        bounded = [q for q in self.wait_queues.occupied if isinstance(q, BoundedQueue)]
        for queue in bounded:
            for waiter, (_, _, bound) in tuple(queue.waiters.items()):
                error = None if bound is None else self._proofs.refusal(bound)
                if error is not None and not waiter.done():
                    self.wait_queues.fail(queue, waiter, error)
        if bounded and serve:
            self._serve_all()
        for queue in bounded:
            if queue.is_anybody_without():
                self._attention.prove(queue)
            else:
                self._attention.proved(queue)

    def _try_to_serve(self, queue: WaitQueue[PoolT], waiter: Waiter) -> bool:
        try:
            _, _, bound = queue.waiters[waiter]
            if bound is not None and isinstance(queue, BoundedQueue):
                host_pool = self.take_fresh(queue, bound)
            else:
                host_pool = self.take(queue)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            # The policy's error: told to the acquire for which it was asked.
            self.wait_queues.fail(queue, waiter, exc)
            return True
        if host_pool is not None:
            self.wait_queues.serve(queue, waiter, host_pool)
        return host_pool is not None


def _now() -> float:
    return asyncio.get_running_loop().time()


def _no_candidate(chosen: object) -> TypeError:
    return TypeError(f"the balancer policy returned {chosen!r}, not a candidate")


def _retired() -> ValueError:
    return ValueError("the pool was retired meanwhile")
