"""What is asked for whenever metrics are collected: states, and counts."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
from pyscopg2.base import BasePoolManager
from pyscopg2.core.statistics import HostStats, Stats
from pyscopg2.core.topology import Role
from pyscopg2.opentelemetry import conventions
from pyscopg2.opentelemetry.names import Names

SCOPE = "pyscopg2.opentelemetry"

ROLE = "pyscopg2.role"
REASON = "pyscopg2.reason"

_Reading: TypeAlias = Callable[[Stats, Names], Iterator[Observation]]


class Gauges:
    """The instruments of one meter provider, and the managers that they tell of.

    There is one for each provider, since a second instrument of one name is silently left out.
    """

    def __init__(self, meter: Meter) -> None:
        self._told: tuple[tuple[BasePoolManager[Any, Any], Names], ...] = ()
        up_down, counter, gauge = (
            meter.create_observable_up_down_counter,
            meter.create_observable_counter,
            meter.create_observable_gauge,
        )
        for create, name, unit, description, reading in (
            (
                up_down,
                conventions.COUNT,
                "{connection}",
                "Open connections that users have, and that nobody uses",
                _connections,
            ),
            (
                up_down,
                conventions.IDLE_MAX,
                "{connection}",
                "So many idle connections are kept at most",
                _each(lambda host: host.idle_max),
            ),
            (
                up_down,
                conventions.IDLE_MIN,
                "{connection}",
                "So many idle connections are kept at least",
                _each(lambda host: host.idle_min),
            ),
            (
                up_down,
                conventions.MAX,
                "{connection}",
                "So many connections users may have",
                _each(lambda host: host.size),
            ),
            (
                up_down,
                conventions.PENDING_REQUESTS,
                "{request}",
                "Acquires that wait, and would take a connection here",
                _each(lambda host: host.waiting),
            ),
            (
                counter,
                conventions.TIMEOUTS,
                "{timeout}",
                "Acquires that got no connection in time, by what was in the way",
                _timeouts,
            ),
            (
                gauge,
                "pyscopg2.host.role",
                "1",
                "1 for the role that a host has, 0 for all others",
                _roles,
            ),
            (
                gauge,
                "pyscopg2.replication.lag",
                "s",
                "How far behind the master a host is at most, where that is proven",
                _each(lambda host: host.lag),
            ),
            (
                gauge,
                "pyscopg2.host.response_time",
                "s",
                "The median of a host's last checks",
                _each(lambda host: host.response_time),
            ),
            (
                counter,
                "pyscopg2.failovers",
                "{failover}",
                "How often a master was named that was not the last one",
                _failovers,
            ),
            (
                counter,
                "pyscopg2.acquires",
                "{acquire}",
                "Acquires that got a connection",
                _each(lambda host: host.acquires),
            ),
            (
                counter,
                "pyscopg2.connect.failures",
                "{connect}",
                "Connects for acquires that failed, or took far too long",
                _each(lambda host: host.failed_connects),
            ),
            (counter, "pyscopg2.checks", "{check}", "Checks", _each(lambda host: host.checks)),
            (
                counter,
                "pyscopg2.check.failures",
                "{check}",
                "Checks that failed",
                _each(lambda host: host.failed_checks),
            ),
            (
                counter,
                "pyscopg2.terminated_connections",
                "{connection}",
                "Connections that were cut off while users had them",
                _each(lambda host: host.terminated),
            ),
        ):
            create(name, [self._callback(reading)], unit=unit, description=description)

    def add(self, manager: BasePoolManager[Any, Any], names: Names) -> Callable[[], None]:
        """Tell of one more manager; what is returned ends that."""
        self._told = (*self._told, (manager, names))

        def end() -> None:
            self._told = tuple(each for each in self._told if each[1] is not names)

        return end

    def _callback(self, reading: _Reading) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for manager, names in self._told:
                yield from reading(manager.stats(), names)

        return observe


def gauges_of(provider: MeterProvider | None) -> Gauges:
    """Those of a provider; None for the global one, which may be set later on."""
    key = None if provider is metrics.get_meter_provider() else provider
    if key is None:
        return _global_gauges()
    gauges = _known.get(key)
    if gauges is None:
        gauges = _known[key] = Gauges(metrics.get_meter(SCOPE, meter_provider=key))
    return gauges


@cache
def _global_gauges() -> Gauges:
    return Gauges(metrics.get_meter(SCOPE))


_known: WeakKeyDictionary[MeterProvider, Gauges] = WeakKeyDictionary()


def _each(number: Callable[[HostStats], float | None]) -> _Reading:
    """One number of each host that has one."""

    def read(stats: Stats, names: Names) -> Iterator[Observation]:
        for host in stats:
            value = number(host)
            if value is not None:
                yield Observation(value, _attributes(host, names))

    return read


def _connections(stats: Stats, names: Names) -> Iterator[Observation]:
    for host in stats:
        attributes = _attributes(host, names)
        yield Observation(host.in_use, attributes | {conventions.STATE: conventions.USED})
        if host.idle is not None:
            yield Observation(host.idle, attributes | {conventions.STATE: conventions.IDLE})


def _roles(stats: Stats, names: Names) -> Iterator[Observation]:
    for host in stats:
        attributes = _attributes(host, names)
        for role in Role:
            yield Observation(int(host.role is role), attributes | {ROLE: role.value})


def _timeouts(stats: Stats, names: Names) -> Iterator[Observation]:
    for reason, count in stats.timeouts.items():
        yield Observation(count, {conventions.POOL_NAME: names.manager, REASON: reason})


def _failovers(stats: Stats, names: Names) -> Iterator[Observation]:
    yield Observation(stats.failovers, {conventions.POOL_NAME: names.manager})


def _attributes(host: HostStats, names: Names) -> dict[str, str]:
    return {conventions.POOL_NAME: names.hosts[host.address]}
