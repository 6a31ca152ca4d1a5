"""What the tracers are told."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context
from opentelemetry.instrumentation.asyncpg import (  # type: ignore[import-untyped, unused-ignore]
    AsyncPGInstrumentor,
)
from opentelemetry.trace import StatusCode
from tests.core.conftest import Bench, virtual
from tests.otel.support import Telemetry

from pyscopg2.asyncpg import PoolManager
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.opentelemetry import conventions, instrument
from pyscopg2.testing.cluster import LocalCluster


@virtual
async def test_an_acquire_that_is_free_makes_no_span() -> None:
    telemetry = Telemetry()
    async with Bench(replicas=0) as bench:
        async with bench.manager.acquire():
            pass
        instrument(bench.manager, telemetry.meters, telemetry.tracers)
        async with bench.manager.acquire():
            pass
    assert telemetry.spans == []


@virtual
async def test_an_acquire_that_waits_is_a_child_of_the_request() -> None:
    telemetry = Telemetry()
    async with Bench(replicas=0, size=1) as bench:
        manager = bench.manager
        instrument(manager, telemetry.meters, telemetry.tracers)
        held = await manager.acquire()
        already = len(telemetry.spans)
        tracer = telemetry.tracers.get_tracer("the program")

        async def request() -> None:
            with tracer.start_as_current_span("request"):
                async with manager.acquire(timeout=5):
                    pass

        running = asyncio.ensure_future(request())
        await asyncio.sleep(0.3)
        await manager.release(held)
        await running
        acquire, whole = telemetry.spans[already:]
        assert (acquire.name, whole.name) == ("pyscopg2.acquire", "request")
        assert acquire.parent is not None
        assert whole.context is not None
        assert acquire.parent.span_id == whole.context.span_id
        assert acquire.attributes == {conventions.POOL_NAME: "db1:5432/test"}
        assert acquire.status.status_code is StatusCode.UNSET
        assert acquire.start_time is not None
        assert acquire.end_time is not None
        assert (acquire.end_time - acquire.start_time) / 1e9 == pytest.approx(0.3, abs=0.01)


@virtual
async def test_an_acquire_that_fails_says_why() -> None:
    telemetry = Telemetry()
    async with Bench(replicas=0, size=1) as bench:
        manager = bench.manager
        async with manager.acquire():
            instrument(manager, telemetry.meters, telemetry.tracers)
            with pytest.raises(AcquireTimeoutError):
                await manager.acquire(timeout=0.5)
            waiting = asyncio.ensure_future(manager.acquire(timeout=5).__aenter__())
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    late, cancelled = telemetry.spans
    assert late.status.status_code is StatusCode.ERROR
    assert "1 of 1 in use" in str(late.status.description)
    assert late.attributes == {
        conventions.POOL_NAME: "db1:5432/test (all)",
        conventions.ERROR_TYPE: "AcquireTimeoutError",
    }
    assert cancelled.status.status_code is StatusCode.UNSET
    assert (cancelled.attributes or {})[conventions.ERROR_TYPE] == "CancelledError"


@virtual
async def test_checks_are_kept_out_of_traces_and_users_queries_are_not() -> None:
    """As OpenTelemetry's own instrumentations ask it."""
    asked: list[tuple[str, bool]] = []

    async with Bench(replicas=0, ready=False) as bench:
        adapter = bench.adapter

        def spy(verb: str) -> None:
            original = getattr(adapter, verb)

            async def spied(*args: object, **kwargs: object) -> object:
                asked.append((verb, bool(context.get_value("suppress_instrumentation"))))
                return await original(*args, **kwargs)

            setattr(adapter, verb, spied)

        for verb in ("create_pool", "reserve", "acquire_from_pool"):
            spy(verb)
        telemetry = Telemetry()
        instrument(bench.manager, telemetry.meters, telemetry.tracers)
        await bench.manager.ready()
        async with bench.manager.acquire():
            pass
    assert set(asked) == {
        ("reserve", True),
        ("create_pool", False),
        ("acquire_from_pool", False),
    }


@pytest.fixture
def asyncpg_is_traced() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    instrumentor: Any = AsyncPGInstrumentor
    instrumentor = instrumentor()
    instrumentor.instrument(tracer_provider=telemetry.tracers, meter_provider=telemetry.meters)
    yield telemetry
    instrumentor.uninstrument()


async def test_beside_the_drivers_own_instrumentation(asyncpg_is_traced: Telemetry) -> None:
    telemetry = asyncpg_is_traced
    with LocalCluster(replicas=0) as cluster:
        async with PoolManager(cluster.dsn, refresh_delay=0.05) as manager:
            instrument(manager, telemetry.meters, telemetry.tracers)
            await manager.ready()
            async with manager.acquire() as connection:
                await connection.fetchval("SELECT 1 AS by_the_user")
            checks = manager.stats().hosts[0].checks
            while manager.stats().hosts[0].checks < checks + 3:
                await manager.wait_next_pool_check()
            statements = [(span.attributes or {}).get("db.statement") for span in telemetry.spans]
            assert "SELECT 1 AS by_the_user" in statements
            assert not [each for each in statements if "pg_is_in_recovery" in str(each)]
            # Each name by one scope alone: `collect` sees to that.
            scopes = {scope for scope, _ in telemetry.collect().values()}
            assert "pyscopg2.opentelemetry" in scopes
