"""The Grafana dashboard: what Grafana needs of it, and what it asks Prometheus for."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.core.conftest import Bench, virtual
from tests.prometheus.alerting import INTERVAL, Watch
from tests.prometheus.promql import assert_exported, labels_used, parse
from tests.prometheus.scraping import labels_exported

from pyscopg2.core.topology import Role
from pyscopg2.prometheus import PoolCollector

FILE = Path(__file__).parents[2] / "packages/prometheus/docs/dashboard.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SHOWING = [panel for panel in PANELS if panel["type"] != "row"]
WIDTH = 24
"""Columns of Grafana's grid."""

BUILT_IN = {"__rate_interval": "5m", "__range": "1h"}
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def variables() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in DASHBOARD["templating"]["list"]}


def expanded(query: str) -> str:
    """With Grafana's variables filled in; `KeyError`: there is no such one."""
    values = dict.fromkeys(variables(), ".+") | BUILT_IN
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], query)


def queries() -> Iterator[tuple[str, str]]:
    """The panel's title, and what it asks for."""
    for panel in SHOWING:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for each in DASHBOARD["annotations"]["list"]:
        yield each["name"], each["expr"]


def test_what_grafana_needs_to_import_it() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["title"]
    assert re.fullmatch("[a-zA-Z0-9_-]{1,40}", DASHBOARD["uid"])
    # Grafana gives it a number of its own.
    assert DASHBOARD["id"] is None
    assert DASHBOARD["time"].keys() == {"from", "to"}
    assert not {"__inputs", "__requires"} & DASHBOARD.keys()


def test_each_panel_has_its_number_its_title_and_what_it_shows() -> None:
    numbers = [panel["id"] for panel in PANELS]
    assert len(set(numbers)) == len(numbers)
    assert all(isinstance(number, int) and number > 0 for number in numbers)
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)
    for panel in SHOWING:
        assert panel["type"] in {"stat", "state-timeline", "timeseries"}
        assert panel["datasource"] == DATA_SOURCE
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"].keys() == {"defaults", "overrides"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["options"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        for target in panel["targets"]:
            assert target["datasource"] == DATA_SOURCE
            assert target["legendFormat"]


def test_panels_fill_the_grid_and_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH
        columns = range(place["x"], place["x"] + place["w"])
        rows = range(place["y"], place["y"] + place["h"])
        for cell in itertools.product(columns, rows):
            assert cell not in taken, f"{panel['title']} and {taken[cell]}"
            taken[cell] = panel["title"]
    assert len(taken) == WIDTH * (max(row for _, row in taken) + 1)


def test_its_variables() -> None:
    assert list(variables()) == ["datasource", "job", "pool", "instance"]
    assert variables()["datasource"]["type"] == "datasource"
    assert variables()["datasource"]["query"] == "prometheus"
    for name in ("job", "pool", "instance"):
        variable = variables()[name]
        assert variable["type"] == "query"
        assert variable["datasource"] == DATA_SOURCE
        assert variable["query"]["query"] == variable["definition"]
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
        assert found is not None
        selector, label = found.groups()
        assert label == name
        parse(expanded(selector))


@virtual
async def test_it_asks_for_what_is_exported() -> None:
    async with Bench() as bench:
        exported = labels_exported(PoolCollector(bench.manager))
    asked: set[str] = set()
    for title, query in queries():
        expr = parse(expanded(query))
        assert_exported(expr, exported)
        asked |= set(re.findall(r"pyscopg2_\w+", query))
        # What is chosen above it holds for all of it.
        for selector in re.findall(r"\{(.*?)\}", query):
            for name in ("job", "pool", "instance"):
                assert f'{name}=~"${name}"' in selector, title
    assert {
        "pyscopg2_host_role",
        "pyscopg2_connections_limit",
        "pyscopg2_wait_seconds_bucket",
        "pyscopg2_replication_lag_seconds",
        "pyscopg2_failovers_total",
        "pyscopg2_acquire_timeouts_total",
    } <= asked


def test_a_legend_names_labels_that_are_left() -> None:
    for panel in SHOWING:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert label in labels_used(parse(expanded(target["expr"]))), panel["title"]


@virtual
async def test_the_roles_over_time() -> None:
    """The numbers of the timeline stand for the roles that it shows."""
    (panel,) = (panel for panel in PANELS if panel["type"] == "state-timeline")
    (target,) = panel["targets"]
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    texts = {float(number): shown["text"] for number, shown in mapping["options"].items()}
    assert set(texts.values()) == {role.value for role in Role}
    for number, shown in mapping["options"].items():
        assert shown["color"]
        assert shown["index"] == int(number) - 1
        assert f"{number} * pyscopg2_host_role{{" in target["expr"]
    expr = parse(expanded(target["expr"]))
    async with Bench() as bench:
        watch = Watch(PoolCollector(bench.manager))
        await watch.watch(INTERVAL)
        assert shown_roles(watch, expr, texts) == {"db1:5432": "master", "db2:5432": "replica"}
        bench.network.failover(old_stays=True)
        await watch.watch(INTERVAL)
        await watch.watch(INTERVAL)
        assert shown_roles(watch, expr, texts) == {"db1:5432": "superseded", "db2:5432": "master"}


def shown_roles(watch: Watch, expr: Any, texts: dict[float, str]) -> dict[str, str]:
    return {dict(labels)["host"]: texts[value] for labels, value in watch.value_of(expr).items()}
