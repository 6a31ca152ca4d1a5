"""`hatch run demo`: what happens to writes and reads when a master dies.

Starts a real PostgreSQL cluster on this machine, and writers and readers that use pyscopg2 with
its default settings. Kills the master, promotes a replica, brings the old master back as a
replica, and sums up: how long there were no writes and why, which errors the load saw, where the
reads went. Exits 0 only if routing recovered and nothing leaked, else 1.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType

from rich.console import Console

from pyscopg2.balancer_policy import (
    BalancerPolicy,
    GreedyBalancerPolicy,
    RandomWeightedBalancerPolicy,
    RoundRobinBalancerPolicy,
)
from pyscopg2.core.errors import PyscopgError
from pyscopg2.testing.cluster import ClusterError, LocalCluster
from pyscopg2.testing.postgres import PostgresBinaries

from .report import failed_checks, summary
from .story import Pace, Story
from .view import choose_view

_ENDING = (signal.SIGINT, signal.SIGTERM)
_POLICIES: Mapping[str, type[BalancerPolicy]] = {
    "greedy": GreedyBalancerPolicy,
    "random": RandomWeightedBalancerPolicy,
    "round-robin": RoundRobinBalancerPolicy,
}
_QUICK = 4.0


class Ending:
    """Ctrl-C and SIGTERM: the first one ends the story in good order, the second one at once.

    Even then nothing stays behind: the cluster's guardian process sees to it.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._task: asyncio.Task[int] | None = None

    def install(self, task: "asyncio.Task[int]") -> None:
        """Within the event loop, for its main task."""
        self._task = task
        for number in _ENDING:
            # Not the loop's own: these hold beyond its end, until the files are removed as well.
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        if self._task is not None and not self._task.done():
            loop = self._task.get_loop()
            loop.call_soon_threadsafe(self._task.cancel)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="hatch run demo",
        description=__doc__.partition("\n\n")[2] if __doc__ else None,
        epilog="Ctrl-C ends it at any time and removes the cluster (exit code 130; SIGTERM: 143).",
    )
    parser.add_argument(
        "--replicas",
        type=int,
        default=2,
        choices=range(1, 7),
        metavar="N",
        help="1 to 6, default %(default)s",
    )
    parser.add_argument(
        "--policy",
        choices=_POLICIES,
        default="greedy",
        help="how a host is chosen for a read, default %(default)s",
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--seconds",
        type=_seconds,
        default=16.0,
        metavar="S",
        help="how long it takes, about: 1 to 600, default %(default)g",
    )
    pace.add_argument("--quick", action="store_true", help=f"the same as --seconds {_QUICK:g}")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave the cluster up after the summary, until Ctrl-C, and say how to connect",
    )
    parser.add_argument(
        "--plain", action="store_true", help="plain lines in a terminal too, instead of a screen"
    )
    return parser.parse_args()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 600:
        raise argparse.ArgumentTypeError("1 to 600")
    return seconds


async def _run(arguments: argparse.Namespace, cluster: LocalCluster, ending: Ending) -> int:
    task = asyncio.current_task()
    assert task is not None
    ending.install(task)
    pace = Pace.of(_QUICK if arguments.quick else arguments.seconds)
    with choose_view(Console(highlight=False), plain=arguments.plain) as view:
        story = Story(cluster, _POLICIES[arguments.policy], pace, view)
        found = await story.play()
    print("", *summary(found, story.ledger), sep="\n", flush=True)
    code = 1 if failed_checks(found, story.ledger) else 0
    if arguments.keep:
        print(_how_to_connect(cluster), flush=True)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # Ctrl-C is how this ends, so the code is the story's.
            if ending.number != signal.SIGINT:
                raise
    return code


def _how_to_connect(cluster: LocalCluster) -> str:
    psql = PostgresBinaries.find().program("psql")
    return f"""
The cluster stays up until Ctrl-C. Its DSN:

{cluster.dsn}

{psql} '{cluster.dsn}?target_session_attrs=read-write'

import asyncio
from pyscopg2.asyncpg import PoolManager

async def main():
    async with PoolManager("{cluster.dsn}") as manager:
        await manager.ready()
        async with manager.acquire_master() as connection:
            print(await connection.fetchval("SELECT count(*) FROM demo"), manager.topology)

asyncio.run(main())
"""


def main() -> int:
    """The whole program; returns its exit code."""
    arguments = _arguments()
    ending = Ending()
    cluster = LocalCluster(arguments.replicas)
    try:
        try:
            return asyncio.run(_run(arguments, cluster, ending))
        finally:
            # Here the loop has ended, and with it the threads that may be at the cluster.
            cluster.close()
    except asyncio.CancelledError:
        return 128 + (ending.number or signal.SIGINT)
    except (ClusterError, PyscopgError) as error:
        if ending.number is not None:
            return 128 + ending.number
        print(f"The demo could not go on: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Nobody reads on. What Python flushes at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
