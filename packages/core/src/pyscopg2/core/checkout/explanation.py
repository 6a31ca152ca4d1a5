"""Of each host, whether it serves a request, and if not, why.

An error blames a host of which the request could have had a connection, and no other: where a pool
is merely exhausted, nobody's.
"""

import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from pyscopg2.core.checkout.bound import Bound
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.request import Request
from pyscopg2.core.checkout.selection import eligible
from pyscopg2.core.checkout.slots import Slots
from pyscopg2.core.checkout.wait_queue import BoundedQueue, WaitQueue
from pyscopg2.core.diagnosis.redaction import describe
from pyscopg2.core.diagnosis.standing import Explanation, Hindrance, Standing
from pyscopg2.core.dsn.target import Target
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.topology.host_state import HostState, Role
from pyscopg2.core.topology.snapshot import Topology

Tried = dict[str, BaseException | None]
"""What came of an acquire's connects, by address, the last one last; None: of its own no error, it
took too long."""


class Failed(NamedTuple):
    """An acquire that gives up."""

    timeout: float
    """How long it had, in seconds."""
    tried: Tried
    waiting: Mapping[WaitQueue[Any], int]
    """How many waited in each queue."""


def explain(
    queue: WaitQueue[Any],
    slots: Slots[Any],
    topology: Topology,
    targets: Mapping[str, Target],
    bound: Bound | None = None,
    failed: Failed | None = None,
) -> Explanation:
    """Of each host whether it serves this request now; or, where an acquire has ``failed``, why it
    did not."""
    now = stopwatch.clock()
    request = queue.request
    host_pools = {host_pool.address: host_pool for host_pool in slots.host_pools}
    able = {host.address for host in eligible(topology, request)}
    prompt = slots.candidates(queue)
    proven = (
        queue.proven(bound) if bound is not None and isinstance(queue, BoundedQueue) else prompt
    )

    def standing(host: HostState) -> Standing:
        host_pool = host_pools.get(host.address)
        if host.address not in able or host_pool is None:
            return Standing(host.address, Hindrance.ROLE, str(host))
        known = topology.freshness(host.address)
        if bound is not None and not bound.is_met(known, now):
            return Standing(host.address, Hindrance.LAG, f"{host}: {known.describe(now)}")
        hindrance, reason = _hindrance(host_pool, failed, slots, targets[host.address].secrets)
        if hindrance is None and host_pool not in prompt:
            hindrance, reason = Hindrance.ROLE, "prompt ones come first"
        elif hindrance is None and host_pool not in proven:
            hindrance, reason = Hindrance.ROLE, "replicas come first"
        return Standing(host.address, hindrance, f"{host}: {reason}")

    asked = str(request) if bound is None else f"{request} {bound.describe()}"
    explanation = Explanation(asked, tuple(map(standing, topology)))
    return replace(explanation, advice=_advice(explanation, request, topology))


def cause_of(
    request: Request, slots: Slots[Any], topology: Topology, tried: Tried
) -> BaseException | None:
    """The driver's own error that stood in the way of an acquire, if there is one."""
    failed = [error for error in tried.values() if error is not None]
    if failed:
        return failed[-1]
    able = {host.address for host in eligible(topology, request)}
    if able:
        trials = [each for each in slots.host_pools if each.address in able]
        failing = [each for each in trials if each.failure is not None]
        return max(failing, key=lambda each: each.tried_at).failure if failing else None
    return blamed(topology, read_only=request.read_only)


def blamed(topology: Topology, *, read_only: bool) -> BaseException | None:
    """While no host has a role: the error of the one that comes first among those that may have
    it. That is one which had it, rather than one of which nothing is known, and another last."""
    lost = [host for host in topology if host.role is Role.UNAVAILABLE and host.error is not None]
    return _first(lost, read_only).error if lost else None


def _first(hosts: Iterable[HostState], read_only: bool) -> HostState:
    def rank(host: HostState) -> tuple[int, bool]:
        had_it = host.answer is not None and host.answer.writable is not read_only
        return 0 if had_it else 1 if host.answer is None else 2, not host.hopeless

    return min(hosts, key=rank)


def _advice(explanation: Explanation, request: Request, topology: Topology) -> str:
    if explanation.hindrance is Hindrance.BUSY:
        return (
            "The pool is full: give connections back sooner, or give pool_factory_kwargs a larger"
            " size (max_size, or what the driver calls it)"
        )
    is_for_replicas_alone = request.read_only and not request.fallback_master
    if is_for_replicas_alone and not topology.replicas and topology.masters:
        return "No replica is in service: with fallback_master=True a master serves reads meanwhile"
    return ""


def _hindrance(
    host_pool: HostPool[Any],
    failed: Failed | None,
    slots: Slots[Any],
    secrets: Collection[str],
) -> tuple[Hindrance | None, str]:
    """What stands in the way at a host that has the role, in words; None: nothing."""
    tried: Tried = {} if failed is None else failed.tried
    error = tried.get(host_pool.address) or host_pool.failure
    said = None if error is None else describe(error, secrets)
    if host_pool.suspended:
        why = f"after a failed connect: {said}" if said else "a connect took too long"
        return Hindrance.CONNECT, f"suspended, {why}"
    if host_pool.in_use >= host_pool.limit:
        waiting = slots.wait_queues.lengths() if failed is None else failed.waiting
        crowd = sum(waiting[queue] for queue in waiting if host_pool in slots.candidates(queue))
        size = "" if host_pool.size == sys.maxsize else f" of {host_pool.size}"
        reason = f"{host_pool.in_use}{size} in use, {crowd} waiting"
        if host_pool.limit == host_pool.size:
            return Hindrance.BUSY, reason
        more = f"no more after a failed connect: {said}" if said else "connects are slow"
        return Hindrance.CONNECT, f"{reason}, {more}"
    if failed is None:
        size = "no limit" if host_pool.size == sys.maxsize else f"{host_pool.free} free"
        return None, f"would serve, {size}"
    within = f"no connection within {failed.timeout:g} s"
    if said:
        return Hindrance.CONNECT, f"{within}: {said}"
    if host_pool.address in tried:
        return Hindrance.CONNECT, within
    return Hindrance.BUSY, "a slot came free too late"
