"""What the meters are told."""

import gc
import weakref
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics.export import Gauge, Histogram, Sum
from opentelemetry.semconv._incubating.attributes import (  # type: ignore[import-untyped, unused-ignore]
    db_attributes,
)
from opentelemetry.semconv._incubating.metrics import (  # type: ignore[import-untyped, unused-ignore]
    db_metrics,
)
from opentelemetry.semconv.attributes import error_attributes
from tests.core.conftest import Bench, virtual
from tests.otel.support import Telemetry

from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.opentelemetry import conventions, instrument

CONVENTIONS: Any = db_metrics


class Noting:
    """A meter that notes how the conventions' own package makes their instruments."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, str]] = {}

    def __getattr__(self, method: str) -> Any:
        def make(name: str, unit: str, description: str, **_: Any) -> None:
            self.made[name] = method.removeprefix("create_"), unit

        return make


@virtual
async def test_names_kinds_and_units_are_the_conventions() -> None:
    noting = Noting()
    for name in dir(CONVENTIONS):
        if name.startswith("create_db_client_connection_"):
            getattr(CONVENTIONS, name)(noting)
    telemetry = Telemetry()
    async with Bench(replicas=1, size=2) as bench:
        manager = bench.manager
        instrument(manager, telemetry.meters, telemetry.tracers)
        # The first one is idle, for the second one the driver connects.
        async with manager.acquire(), manager.acquire(), manager.acquire_replica():
            with pytest.raises(AcquireTimeoutError):
                await bench.manager.acquire(timeout=0.1)
        told = {name: metric for name, (_, metric) in telemetry.collect().items()}
    kinds = {
        "up_down_counter": (Sum, False),
        "counter": (Sum, True),
        "histogram": (Histogram, None),
    }
    assert {name for name in told if name.startswith("db.")} == noting.made.keys()
    for name, (kind, unit) in noting.made.items():
        metric = told[name]
        assert metric.unit == unit, name
        data, is_monotonic = kinds[kind]
        assert isinstance(metric.data, data), name
        assert getattr(metric.data, "is_monotonic", None) is is_monotonic, name
    ours = {name: metric for name, metric in told.items() if name.startswith("pyscopg2.")}
    assert told.keys() - noting.made.keys() == ours.keys()
    assert all(metric.description and metric.unit for metric in ours.values())
    assert isinstance(ours["pyscopg2.host.role"].data, Gauge)


def test_attributes_are_the_conventions() -> None:
    attributes: Any = db_attributes
    assert conventions.POOL_NAME == attributes.DB_CLIENT_CONNECTION_POOL_NAME
    assert conventions.STATE == attributes.DB_CLIENT_CONNECTION_STATE
    states = attributes.DbClientConnectionStateValues
    assert (states.USED.value, states.IDLE.value) == (conventions.USED, conventions.IDLE)
    assert conventions.ERROR_TYPE == error_attributes.ERROR_TYPE


@virtual
async def test_pools_as_they_are() -> None:
    telemetry = Telemetry()
    async with Bench(replicas=1, size=3) as bench:
        instrument(bench.manager, telemetry.meters, telemetry.tracers)
        held = [await bench.manager.acquire() for _ in range(2)]
        await bench.manager.release(held.pop())
        counts = {
            (each[conventions.POOL_NAME], each[conventions.STATE]): value
            for each, value in telemetry.points(conventions.COUNT)
        }
        assert counts == {
            ("db1:5432/test", "used"): 1,
            ("db1:5432/test", "idle"): 1,
            ("db2:5432/test", "used"): 0,
            ("db2:5432/test", "idle"): 1,
        }
        assert telemetry.values(conventions.MAX) == {"db1:5432/test": 3, "db2:5432/test": 3}
        assert telemetry.values(conventions.IDLE_MIN) == {"db1:5432/test": 0, "db2:5432/test": 0}
        assert telemetry.values(conventions.IDLE_MAX) == {"db1:5432/test": 3, "db2:5432/test": 3}
        assert telemetry.values("pyscopg2.replication.lag")["db1:5432/test"] == 0
        await bench.manager.release(held.pop())


@virtual
async def test_acquires_as_they_go() -> None:
    telemetry = Telemetry()
    async with Bench(replicas=0, size=1) as bench:
        manager = bench.manager
        instrument(manager, telemetry.meters, telemetry.tracers)
        async with manager.acquire():
            with pytest.raises(AcquireTimeoutError):
                await manager.acquire(timeout=0.5)
        wait = telemetry.values(conventions.WAIT_TIME)["db1:5432/test"]
        use = telemetry.values(conventions.USE_TIME)["db1:5432/test"]
        assert (wait.count, use.count) == (1, 1)
        assert use.sum == pytest.approx(0.5, abs=0.01)
        assert wait.explicit_bounds[0] == 0.0001
        (timeout,) = telemetry.points(conventions.TIMEOUTS)
        assert timeout == (
            {conventions.POOL_NAME: "db1:5432/test (all)", "pyscopg2.reason": "busy"},
            1,
        )
        assert telemetry.values("pyscopg2.acquires") == {"db1:5432/test": 1}


@virtual
async def test_those_that_waited_alone_where_that_is_asked_for() -> None:
    telemetry = Telemetry()
    async with Bench(replicas=0, size=1) as bench:
        manager = bench.manager
        # The first one connects.
        async with manager.acquire():
            pass
        instrument(manager, telemetry.meters, telemetry.tracers, record_free=False)
        for _ in range(3):
            async with manager.acquire():
                pass
        assert telemetry.values(conventions.WAIT_TIME) == {}
        assert telemetry.values(conventions.USE_TIME)["db1:5432/test"].count == 3


def roles(telemetry: Telemetry) -> dict[str, str]:
    return {
        each[conventions.POOL_NAME]: each["pyscopg2.role"]
        for each, value in telemetry.points("pyscopg2.host.role")
        if value
    }


@virtual
async def test_a_failover() -> None:
    telemetry = Telemetry()
    async with Bench(replicas=1) as bench:
        instrument(bench.manager, telemetry.meters, telemetry.tracers)
        connection = await bench.manager.acquire()
        assert roles(telemetry) == {"db1:5432/test": "master", "db2:5432/test": "replica"}
        bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master")
        assert roles(telemetry) == {"db1:5432/test": "superseded", "db2:5432/test": "master"}
        assert telemetry.values("pyscopg2.failovers") == {"db1:5432,db2:5432/test": 1}
        assert telemetry.values("pyscopg2.terminated_connections")["db1:5432/test"] == 1
        await bench.manager.release(connection)


@virtual
async def test_two_managers_are_never_merged() -> None:
    telemetry = Telemetry()
    async with Bench(replicas=0, size=1) as one, Bench(replicas=0, size=2) as two:
        first = instrument(one.manager, telemetry.meters, telemetry.tracers)
        instrument(two.manager, telemetry.meters, telemetry.tracers)
        assert telemetry.values(conventions.MAX) == {"db1:5432/test": 1, "db1:5432/test (2)": 2}
        async with two.manager.acquire():
            pass
        assert telemetry.values(conventions.USE_TIME).keys() == {"db1:5432/test (2)"}
        first.uninstrument()
        first.uninstrument()
        assert telemetry.values(conventions.MAX) == {"db1:5432/test (2)": 2}
        # The name is free again.
        instrument(one.manager, telemetry.meters, telemetry.tracers)
        assert telemetry.values(conventions.MAX) == {"db1:5432/test": 1, "db1:5432/test (2)": 2}


@virtual
async def test_a_name_of_ones_own() -> None:
    telemetry = Telemetry()
    async with Bench(replicas=0) as bench:
        told = instrument(bench.manager, telemetry.meters, telemetry.tracers, name="reports")
        assert told.names.hosts == {"db1:5432": "reports db1:5432/test"}


@virtual
async def test_nothing_is_told_of_a_manager_that_is_closed_or_forgotten() -> None:
    telemetry = Telemetry()
    async with Bench(replicas=0) as bench:
        instrument(bench.manager, telemetry.meters, telemetry.tracers)
        assert telemetry.values(conventions.MAX)
    assert telemetry.values(conventions.MAX) == {}
    gone = weakref.ref(bench.manager)
    del bench
    gc.collect()
    assert gone() is None


@virtual
async def test_the_global_provider_may_be_set_later_and_named() -> None:
    telemetry = Telemetry()
    async with Bench(replicas=0) as one, Bench(replicas=0) as two:
        instrument(one.manager)
        metrics.set_meter_provider(telemetry.meters)
        instrument(two.manager, metrics.get_meter_provider())
        assert telemetry.values(conventions.MAX).keys() == {"db1:5432/test", "db1:5432/test (2)"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"manager": "dsn"}, "manager must be a BasePoolManager, not a str"),
        ({"name": 5}, "name must be a str, not a int"),
    ],
)
@virtual
async def test_what_cannot_be_told_of(wrong: dict[str, Any], says: str) -> None:
    async with Bench(replicas=0, ready=False) as bench:
        arguments: dict[str, Any] = {"manager": bench.manager}
        with pytest.raises(TypeError, match=says):
            instrument(**(arguments | wrong))
