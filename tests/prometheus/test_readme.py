"""The README's application on a real cluster, and what it says of metrics, series and alerts."""

import inspect
import re
from pathlib import Path
from typing import Any

import httpx
import prometheus_client
import pytest
from tests.asgi.support import lifespan
from tests.core.conftest import Bench, virtual
from tests.prometheus.alerting import rules
from tests.prometheus.scraping import Scrape, families_in, samples_in, text_of
from tests.support.waiting import eventually

from pyscopg2.core.statistics import Hindrance
from pyscopg2.core.topology import Role
from pyscopg2.prometheus import PoolCollector
from pyscopg2.testing.cluster import LocalCluster

README = Path(__file__).parents[2] / "packages/prometheus/README.md"
TEXT = README.read_text()
PLACEHOLDER = "postgresql://app:secret@db1:5432,db2:5432,db3:5432/app"


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


async def test_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    first = re.search(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert first is not None
    assert PLACEHOLDER in first[1]
    with LocalCluster(replicas=1) as cluster:
        names: dict[str, Any] = {"__name__": "readme"}
        exec(first[1].replace(PLACEHOLDER, cluster.dsn), names)
        app = names["app"]
        transport = httpx.ASGITransport(app=app)
        async with (
            lifespan(app),
            httpx.AsyncClient(transport=transport, base_url="http://service.test") as client,
        ):

            async def scrape() -> Scrape:
                response = await client.get("/metrics")
                assert response.status_code == 200
                assert response.headers["content-type"] == prometheus_client.CONTENT_TYPE_LATEST
                assert "secret" not in response.text
                return Scrape(samples_in(response.text))

            async def are_known() -> bool:
                told = await scrape()
                return all(
                    told("pyscopg2_host_role", host=node.address, role=role) == 1
                    and told("pyscopg2_host_serving", host=node.address) == 1
                    and told("pyscopg2_replication_lag_seconds", host=node.address) is not None
                    for node, role in (
                        (cluster.primary, "master"),
                        (cluster.replicas[0], "replica"),
                    )
                )

            await eventually(are_known)
            for _ in range(3):
                assert (await client.get("/users/count")).json() >= 1
            replica = cluster.replicas[0].address
            told = await scrape()
            assert told("pyscopg2_acquires_total", host=replica) == 3
            assert told("pyscopg2_use_seconds_count", host=replica) == 3
            (labels,) = told.all("pyscopg2_up")
            database = cluster.dsn.rpartition("/")[2].partition("?")[0]
            addresses = ",".join(node.address for node in cluster.nodes)
            assert dict(labels)["pool"] == f"{addresses}/{database}"
        # It is closed.
        assert "pool=" not in prometheus_client.generate_latest(registry).decode()


@virtual
async def test_the_table_of_metrics_is_what_is_exported() -> None:
    rows = re.findall(
        r"^\| `(pyscopg2_\w+)` \| (\w+) \| (.*?) ?\| (.*) \|$", section("Metrics"), re.MULTILINE
    )
    async with Bench() as bench:
        families = families_in(text_of(PoolCollector(bench.manager)))
    exported = [
        (
            name + ("_total" if family.type == "counter" else ""),
            family.type,
            {name for sample in family.samples for name in sample.labels} - {"pool", "le"},
            family.documentation,
        )
        for name, family in families.items()
    ]
    assert [
        (name, kind, set(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows
    ] == exported


@virtual
async def test_the_number_of_series() -> None:
    said = re.search(r"(\d+) for each host and (\d+) for each pool.*?: (\d+) for three hosts", TEXT)
    assert said is not None
    for_host, for_pool, for_three = map(int, said.groups())
    async with Bench(replicas=2) as bench:
        collector = PoolCollector(bench.manager)
        assert len(samples_in(text_of(collector))) == for_three == 3 * for_host + for_pool
    async with Bench(replicas=0) as bench:
        collector = PoolCollector(bench.manager, record_times=False)
        left = len(samples_in(text_of(collector))) - for_pool
        assert f"leaves {left} for each host" in TEXT


def test_the_arguments_and_their_defaults() -> None:
    parameters = inspect.signature(PoolCollector).parameters
    assert parameters.keys() == {"managers", "record_times", "timeout"}
    for name in ("record_times", "timeout"):
        assert f"`{name}={parameters[name].default!r}`" in section("Arguments")
    for name in ("add", "remove"):
        arguments = [
            str(each).partition(":")[0] + ("" if each.default is each.empty else "=None")
            for each in inspect.signature(getattr(PoolCollector(), name)).parameters.values()
        ]
        assert f"`collector.{name}({', '.join(arguments)})`" in section("Arguments")


def test_the_values_of_the_labels() -> None:
    said = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section("Labels"), re.MULTILINE))
    assert said.keys() == {"pool", "host", "role", "state", "reason"}
    assert set(re.findall(r"`(\w+)`", said["role"])) == {role.value for role in Role}
    assert set(re.findall(r"`(\w+)`", said["reason"])) == {each.value for each in Hindrance}


def test_the_table_of_alerts() -> None:
    said = re.findall(r"^\| `(Pyscopg2\w+)` \| (.*) \|$", section("Alerts"), re.MULTILINE)
    assert [name for name, _ in said] == [rule.name for rule in rules()]
