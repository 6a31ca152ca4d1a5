"""What Prometheus' own tool says of the rules, the metrics, and of what has fired in the tests.

``hatch run promtool``, with ``promtool`` in the path: Debian's package ``prometheus`` has it.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from tests.core.conftest import Bench
from tests.prometheus.alerting import FILE, INTERVAL, Watch
from tests.prometheus.scraping import History, text_of
from tests.prometheus.test_alerts import CASES, play

from pyscopg2.prometheus import PoolCollector
from pyscopg2.testing.virtual_time import run

STEP = f"{INTERVAL:g}s"


def input_series(history: History) -> list[dict[str, str]]:
    """What was scraped, in the tool's notation."""
    values: dict[str, list[str]] = {}
    for number, scrape in enumerate(history.scrapes):
        for name, vector in scrape.items():
            for labels, value in vector.items():
                others = (f'{k}="{v}"' for k, v in sorted(labels) if k != "__name__")
                series = values.setdefault(f"{name}{{{','.join(others)}}}", [])
                series += ["stale"] * (number - len(series))
                series.append(repr(value))
    for series in values.values():
        series += ["stale"] * (len(history.scrapes) - len(series))
    return [{"series": name, "values": " ".join(series)} for name, series in values.items()]


def expectations(watch: Watch) -> list[dict[str, Any]]:
    """Of each alert, after each scrape."""
    return [
        {
            "eval_time": f"{number * INTERVAL:g}s",
            "alertname": name,
            "exp_alerts": [
                {"exp_labels": dict(labels) | watch.rules[name].labels} for labels in fired
            ],
        }
        for number, alerts in enumerate(watch.fired)
        for name, fired in alerts.items()
    ]


def without_annotations() -> dict[str, Any]:
    """The rules: what an alert says is not compared."""
    rules: dict[str, Any] = yaml.safe_load(FILE.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    return rules


async def metrics() -> str:
    async with Bench() as bench:
        return text_of(PoolCollector(bench.manager))


def main() -> int:
    parser = argparse.ArgumentParser(prog="hatch run promtool", description=__doc__)
    parser.add_argument("--promtool", default=shutil.which("promtool"), help="its path")
    tool: str | None = parser.parse_args().promtool
    if tool is None:
        parser.error("no promtool in the path")
    failed: list[str] = []

    def ask(what: str, *arguments: str, text: str = "") -> None:
        done = subprocess.run([tool, *arguments], input=text, capture_output=True, text=True)
        # `check metrics` tells of some things without failing.
        is_fine = done.returncode == 0 and not (text and done.stderr)
        print(f"{what}: {'fine' if is_fine else done.stdout + done.stderr}")
        if not is_fine:
            failed.append(what)

    ask("rules", "check", "rules", str(FILE))
    ask("metrics", "check", "metrics", text=run(metrics()))
    with tempfile.TemporaryDirectory() as folder:
        # YAML is JSON and more.
        Path(folder, "rules.yaml").write_text(json.dumps(without_annotations()))
        path = Path(folder, "test.yaml")
        for case in CASES:
            # As in the tests.
            random.seed(0)
            watch = run(play(case))
            expected = expectations(watch)
            told = {
                "interval": STEP,
                "input_series": input_series(watch.history),
                "alert_rule_test": expected,
            }
            written = {"rule_files": ["rules.yaml"], "evaluation_interval": STEP, "tests": [told]}
            path.write_text(json.dumps(written))
            ask(f"{case}, {len(expected)} times", "test", "rules", str(path))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
