"""All metrics, in the order in which they are shown."""

from collections.abc import Callable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pyscopg2.core.statistics import Hindrance, HostStats, Stats
from pyscopg2.core.topology import Role
from pyscopg2.prometheus.metric import Histogram, Metric, Values


def _roles(stats: Stats) -> Values:
    for host in stats:
        for role in Role:
            yield (host.address, role.value), host.role is role


def _connections(stats: Stats) -> Values:
    for host in stats:
        yield (host.address, "used"), host.in_use
        if host.idle is not None:
            yield (host.address, "idle"), host.idle


def _timeouts(stats: Stats) -> Values:
    """Of each reason, also before it has happened: a series that begins with 1 has not risen."""
    for hindrance in Hindrance:
        yield (hindrance.value,), stats.timeouts.get(hindrance.value, 0)


def _gauge(name: str, help_text: str, read: Callable[[HostStats], float | None]) -> Metric:
    """Of each host."""
    return Metric(GaugeMetricFamily, name, help_text, ("host",), _of_hosts(read))


def _counter(name: str, help_text: str, read: Callable[[HostStats], float]) -> Metric:
    """Of each host."""
    return Metric(CounterMetricFamily, name, help_text, ("host",), _of_hosts(read))


def _of_hosts(read: Callable[[HostStats], float | None]) -> Callable[[Stats], Values]:
    """A value of each host; none where it is not known."""

    def values(stats: Stats) -> Values:
        for host in stats:
            value = read(host)
            if value is not None:
                yield (host.address,), value

    return values


METRICS: tuple[Metric | Histogram, ...] = (
    Metric(
        GaugeMetricFamily,
        "pyscopg2_host_role",
        "1 for the role that the host has, 0 for the others.",
        ("host", "role"),
        _roles,
    ),
    _gauge(
        "pyscopg2_host_serving",
        "Whether the host's connections may be handed out at all: 1 or 0.",
        lambda host: host.serving,
    ),
    Metric(
        GaugeMetricFamily,
        "pyscopg2_connections",
        "Connections that are used, also those being opened or on their way back; or idle.",
        ("host", "state"),
        _connections,
    ),
    _gauge(
        "pyscopg2_connections_limit",
        "Connections that users may have at a time; absent without a limit, or a pool.",
        lambda host: host.size,
    ),
    Metric(
        GaugeMetricFamily,
        "pyscopg2_pending_acquires",
        "Acquires that wait for a connection.",
        (),
        lambda stats: [((), stats.waiting)],
    ),
    _gauge(
        "pyscopg2_host_pending_acquires",
        "Acquires that would take a connection of this host; one may count at several hosts.",
        lambda host: host.waiting,
    ),
    _gauge(
        "pyscopg2_replication_lag_seconds",
        "How far behind the master the host is at most; absent while nothing is proven.",
        lambda host: host.lag,
    ),
    _gauge(
        "pyscopg2_response_time_seconds",
        "Median of the times that the host took to answer its last checks.",
        lambda host: host.response_time,
    ),
    _counter(
        "pyscopg2_acquires",
        "Acquires that got a connection.",
        lambda host: host.acquires,
    ),
    Metric(
        CounterMetricFamily,
        "pyscopg2_acquire_timeouts",
        "Acquires that timed out, by what was in the way.",
        ("reason",),
        _timeouts,
    ),
    _counter(
        "pyscopg2_connects",
        "Acquires for which the driver had no connection at once.",
        lambda host: host.connects,
    ),
    _counter(
        "pyscopg2_connect_failures",
        "Connects for acquires that failed, or took far too long.",
        lambda host: host.failed_connects,
    ),
    _counter(
        "pyscopg2_checks",
        "Checks of the host.",
        lambda host: host.checks,
    ),
    _counter(
        "pyscopg2_check_failures",
        "Checks of the host that failed.",
        lambda host: host.failed_checks,
    ),
    _counter(
        "pyscopg2_terminated_connections",
        "Connections that were cut off while they were used.",
        lambda host: host.terminated,
    ),
    _counter(
        "pyscopg2_retired_pools",
        "Driver pools of the host that were given up.",
        lambda host: host.retired,
    ),
    Metric(
        CounterMetricFamily,
        "pyscopg2_failovers",
        "How often a master was named that was not the last one.",
        (),
        lambda stats: [((), stats.failovers)],
    ),
    Histogram(
        "pyscopg2_wait_seconds",
        "How long acquires took that got a connection.",
        lambda host: host.wait_time,
    ),
    Histogram(
        "pyscopg2_use_seconds",
        "How long connections were used, from the acquire to the release.",
        lambda host: host.use_time,
    ),
)
