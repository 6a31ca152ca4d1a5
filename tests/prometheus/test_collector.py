"""What a collector exports, in virtual time."""

import asyncio
import re
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition, parser
from tests.core.conftest import Bench, Manager, make, manager_on, virtual
from tests.prometheus.scraping import Scrape, families_in, labelled, text_of

from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.prometheus import PoolCollector
from pyscopg2.testing.fake import FakeAdapter, FakeNetwork

POOL = "db1:5432,db2:5432/test"
OTHER_UNITS = re.compile("milliseconds|microseconds|nanoseconds|minutes|hours|_ms|percent|kb|mb")


@virtual
async def test_names_and_texts_keep_the_conventions() -> None:
    """Those that ``promtool check metrics`` knows, and the manual's "Metric and label naming"."""
    async with Bench() as bench:
        text = text_of(PoolCollector(bench.manager))
        families = families_in(text)
        assert families
        assert text.count("# HELP ") == text.count("# TYPE ") == len(families)
        for name, family in families.items():
            assert re.fullmatch(r"pyscopg2_[a-z]+(_[a-z]+)*", name)
            assert family.documentation.endswith("."), name
            assert len(family.documentation) > 10, name
            assert family.type in {"gauge", "counter", "histogram"}, name
            assert not OTHER_UNITS.search(name), name
            if family.type == "histogram":
                assert name.endswith("_seconds")
            if family.type == "counter":
                assert f"# TYPE {name}_total counter" in text
            else:
                assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_info")), name
            for sample in family.samples:
                assert "pool" in sample.labels
                assert sample.labels.keys() <= {"pool", "host", "role", "state", "reason", "le"}


@virtual
async def test_openmetrics_reads_it_too() -> None:
    async with Bench() as bench:
        collector = PoolCollector(bench.manager)
        registry = CollectorRegistry()
        registry.register(collector)
        # These have no types.
        text: str = cast("Any", exposition).generate_latest(registry).decode()
        families: list[Metric] = list(cast("Any", parser).text_string_to_metric_families(text))
        assert {family.name for family in families} == families_in(text_of(collector)).keys()
        for family in families:
            assert family.unit == ("seconds" if family.name.endswith("_seconds") else "")


@virtual
async def test_what_is_told_of_a_healthy_pool() -> None:
    async with Bench(size=4) as bench:
        manager = bench.manager
        collector = PoolCollector(manager)
        held = [await manager.acquire() for _ in range(2)]
        async with manager.acquire_replica():
            await asyncio.sleep(0.3)
        await asyncio.sleep(2)
        told = Scrape.of(collector)
        assert told("pyscopg2_up", pool=POOL) == 1
        for host, role in (("db1:5432", "master"), ("db2:5432", "replica")):
            roles = told.all("pyscopg2_host_role", pool=POOL, host=host)
            assert sum(roles.values()) == 1
            assert len(roles) == 7
            assert told("pyscopg2_host_role", pool=POOL, host=host, role=role) == 1
            assert told("pyscopg2_host_serving", pool=POOL, host=host) == 1
            assert told("pyscopg2_connections_limit", pool=POOL, host=host) == 4
            assert told("pyscopg2_host_pending_acquires", pool=POOL, host=host) == 0
            assert told("pyscopg2_response_time_seconds", host=host) == pytest.approx(0.001)
            checks = told("pyscopg2_checks_total", pool=POOL, host=host)
            assert checks is not None
            assert checks >= 2
            assert told("pyscopg2_check_failures_total", pool=POOL, host=host) == 0
        assert told("pyscopg2_connections", host="db1:5432", state="used") == 2
        assert told("pyscopg2_connections", host="db1:5432", state="idle") == 0
        assert told("pyscopg2_connections", host="db2:5432", state="used") == 0
        assert told("pyscopg2_connections", host="db2:5432", state="idle") == 1
        assert told("pyscopg2_replication_lag_seconds", host="db1:5432") == 0
        lag = told("pyscopg2_replication_lag_seconds", host="db2:5432")
        assert lag is not None
        assert 0 < lag < 3
        assert told("pyscopg2_acquires_total", host="db1:5432") == 2
        assert told("pyscopg2_connects_total", host="db1:5432") == 1
        assert told("pyscopg2_failovers_total", pool=POOL) == 0
        assert told("pyscopg2_pending_acquires", pool=POOL) == 0
        assert told("pyscopg2_wait_seconds_count", host="db1:5432") == 2
        assert told("pyscopg2_use_seconds_count", host="db1:5432") == 0
        assert told("pyscopg2_use_seconds_sum", host="db2:5432") == pytest.approx(0.3, abs=0.01)
        buckets = told.all("pyscopg2_use_seconds_bucket", pool=POOL, host="db2:5432")
        assert buckets[frozenset({("le", "0.25")})] == 0
        assert buckets[frozenset({("le", "0.5")})] == 1
        assert buckets[frozenset({("le", "10.0")})] == 1
        assert buckets[frozenset({("le", "+Inf")})] == 1
        for connection in held:
            await manager.release(connection)


@virtual
async def test_who_waits_and_what_times_out() -> None:
    async with Bench(size=1) as bench:
        manager = bench.manager
        collector = PoolCollector(manager)
        reasons = {"role": 0.0, "lag": 0.0, "connect": 0.0, "busy": 0.0}

        def timeouts() -> dict[str, float]:
            found = Scrape.of(collector).all("pyscopg2_acquire_timeouts_total", pool=POOL)
            return {dict(labels)["reason"]: value for labels, value in found.items()}

        # From the start: a counter that appears with 1 has not risen for Prometheus.
        assert timeouts() == reasons
        async with manager.acquire():
            waiting = asyncio.ensure_future(manager.acquire(timeout=1).__aenter__())
            await asyncio.sleep(0.5)
            told = Scrape.of(collector)
            assert told("pyscopg2_pending_acquires", pool=POOL) == 1
            assert told("pyscopg2_host_pending_acquires", host="db1:5432") == 1
            assert told("pyscopg2_host_pending_acquires", host="db2:5432") == 0
            with pytest.raises(AcquireTimeoutError):
                await waiting
        assert timeouts() == reasons | {"busy": 1.0}


@virtual
async def test_a_failover() -> None:
    async with Bench() as bench:
        collector = PoolCollector(bench.manager)
        held = await bench.manager.acquire()
        bench.network.failover(old_stays=True)
        await bench.until(lambda: bench.manager.stats()["db1:5432"].retired == 1, 5)
        told = Scrape.of(collector)
        assert told("pyscopg2_failovers_total", pool=POOL) == 1
        assert told("pyscopg2_host_role", host="db1:5432", role="superseded") == 1
        assert told("pyscopg2_host_role", host="db1:5432", role="master") == 0
        assert told("pyscopg2_host_role", host="db2:5432", role="master") == 1
        assert told("pyscopg2_host_serving", host="db1:5432") == 0
        assert told("pyscopg2_terminated_connections_total", host="db1:5432") == 1
        assert told("pyscopg2_retired_pools_total", host="db1:5432") == 1
        # It has no pool, and is proven to be nowhere.
        assert told("pyscopg2_connections_limit", host="db1:5432") is None
        assert told("pyscopg2_replication_lag_seconds", host="db1:5432") is None
        await bench.manager.release(held)


@virtual
async def test_times_are_not_recorded_where_nobody_wants_them() -> None:
    async with Bench() as bench:
        collector = PoolCollector(bench.manager, record_times=False)
        async with bench.manager.acquire():
            pass
        told = Scrape.of(collector)
        assert told("pyscopg2_acquires_total", host="db1:5432") == 1
        assert told.all("pyscopg2_wait_seconds_count") == {}
        assert "# TYPE pyscopg2_wait_seconds histogram" in text_of(collector)
        assert bench.manager.stats()["db1:5432"].wait_time is None


@virtual
async def test_several_managers_are_told_apart() -> None:
    one, other = Bench(), Bench(replicas=0)
    async with one, other:
        collector = PoolCollector(one.manager, other.manager)
        async with one.manager.acquire():
            pass
        told = Scrape.of(collector)
        assert told("pyscopg2_acquires_total", pool=POOL, host="db1:5432") == 1
        assert told("pyscopg2_acquires_total", pool="db1:5432/test", host="db1:5432") == 0
        assert len(told.all("pyscopg2_up")) == 2


def test_two_of_one_name_are_refused_and_a_name_helps() -> None:
    one, other = make(), make()
    collector = PoolCollector(one)
    with pytest.raises(ValueError, match=r"another pool manager is 'db1:.*': give each a name"):
        collector.add(other)
    assert other.stats()["db1:5432"].wait_time is None
    collector.add(other, name="reports")
    with pytest.raises(ValueError, match="is here already, as 'reports'"):
        collector.add(other, name="again")
    pools = Scrape.of(collector).all("pyscopg2_up")
    assert {dict(labels)["pool"] for labels in pools} == {
        "db1:5432,db2:5432,db3:5432/test",
        "reports",
    }
    collector.remove(other)
    collector.remove(other)
    assert len(Scrape.of(collector).all("pyscopg2_up")) == 1
    collector.add(other, name="db")


def test_a_second_collector_is_refused_by_the_registry() -> None:
    registry = CollectorRegistry()
    registry.register(PoolCollector(make()))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(PoolCollector(make(dsn="host=other")))


def test_registering_asks_no_manager() -> None:
    manager = Mute(FakeNetwork.cluster().dsn)
    collector = PoolCollector(manager)
    manager.is_mute = True
    CollectorRegistry().register(collector)


class Mute(Manager):
    adapter = FakeAdapter(FakeNetwork.cluster())
    is_mute = False

    def stats(self) -> Any:
        assert not self.is_mute
        return super().stats()


def test_no_label_has_a_secret() -> None:
    network = FakeNetwork.cluster()
    for dsn in (
        "postgresql://app:p4ss@db1,db2/shop",
        "postgresql://app:12/p4ss@db1/shop",
        "host=db1 user=app dbname='shop;password=p4ss'",
    ):
        text = text_of(PoolCollector(manager_on(FakeAdapter(network), dsn)))
        assert "pyscopg2_up{" in text
        assert "p4ss" not in text


@virtual
async def test_a_manager_that_is_closed_is_shown_no_longer() -> None:
    async with Bench() as bench:
        collector = PoolCollector(bench.manager)
        assert labelled("pyscopg2_up", pool=POOL) in Scrape.of(collector).samples
    assert Scrape.of(collector).samples == {}
    async with Bench() as bench:
        collector.add(bench.manager)
        assert labelled("pyscopg2_up", pool=POOL) in Scrape.of(collector).samples


@virtual
async def test_it_may_be_made_before_the_manager_starts() -> None:
    async with Bench(ready=False) as bench:
        collector = PoolCollector(bench.manager)
        told = Scrape.of(collector)
        assert told("pyscopg2_up", pool=POOL) == 1
        assert told("pyscopg2_host_role", host="db1:5432", role="unknown") == 1
        assert told("pyscopg2_wait_seconds_count", host="db1:5432") == 0
        async with bench.manager.acquire():
            told = Scrape.of(collector)
            assert told("pyscopg2_host_role", host="db1:5432", role="master") == 1
            assert told("pyscopg2_connections", host="db1:5432", state="used") == 1


@virtual
async def test_a_family_without_samples_is_valid_text() -> None:
    collector = PoolCollector()
    registry = CollectorRegistry()
    registry.register(collector)
    assert families_in(generate_latest(registry).decode()).keys()
    assert Scrape.of(collector).samples == {}
