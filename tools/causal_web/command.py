"""`hatch run causal-web`: what one process writes, another one reads, over HTTP.

Starts a real PostgreSQL cluster, of which one replica replays half a second late, and two processes
of a service behind uvicorn. One client writes a row by one process and reads it by the other, with
the cookie that `pyscopg2.asgi` sets; and, to compare, without it. Exits 0 if no read with the
cookie missed its row, and some without did; else 1.
"""

import argparse
import contextlib
import secrets
import statistics

from rich.console import Console
from rich.table import Table

from pyscopg2.testing.cluster import LocalCluster

from .pairs import Outcome, run
from .processes import process
from .service import TABLE

DELAY = "500ms"


def _tell(console: Console, outcomes: list[Outcome], words: dict[str, str]) -> None:
    table = Table(*("write", "pairs", "misses", *words.values(), "median read", "slowest"))
    for each in outcomes:
        served = (str(each.served[server]) for server in words)
        median, slowest = statistics.median(each.seconds), max(each.seconds)
        times = (f"{1000 * seconds:.1f} ms" for seconds in (median, slowest))
        table.add_row(each.name, str(each.pairs), str(each.misses), *served, *times)
    console.print(table)


def main() -> int:
    description = __doc__.partition("\n\n")[2] if __doc__ else None
    parser = argparse.ArgumentParser(prog="hatch run causal-web", description=description)
    parser.add_argument("--pairs", type=int, default=1000, metavar="N", help="default %(default)s")
    options = parser.parse_args()
    console = Console(width=140)
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(LocalCluster(replicas=2))
        cluster.psql(cluster.primary, TABLE)
        prompt, late = cluster.replicas
        cluster.psql(late, f"ALTER SYSTEM SET recovery_min_apply_delay = '{DELAY}'")
        cluster.psql(late, "SELECT pg_reload_conf()")
        secret = secrets.token_urlsafe()
        addresses = [stack.enter_context(process(cluster.dsn, secret)) for _ in range(2)]
        count: int = options.pairs
        carried = [
            run("in the handler", "in-handler", addresses, count, carries=True),
            run("ends after the response", "in-dependency", addresses, count, carries=True),
        ]
        bare = run("without the cookie", "in-handler", addresses, count, carries=False)
        words = {
            prompt.name: "by the prompt replica",
            late.name: f"by the one {DELAY} late",
            cluster.primary.name: "by the primary",
        }
        _tell(console, [*carried, bare], words)
    return 0 if not any(each.misses for each in carried) and bare.misses else 1
