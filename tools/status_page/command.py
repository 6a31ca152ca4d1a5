"""Screenshots of the status page, while a master is lost and after another one was promoted.

Starts a real PostgreSQL cluster on this machine, a service under load, and Debian's Chromium.
Writes a PNG for each screen, light and dark, at each moment.
"""

import argparse
import asyncio
from pathlib import Path

from selenium import webdriver

from pyscopg2.testing.cluster import LocalCluster

from .browser import chromium, command, looks_like, shoot
from .service import running

SCREENS = {"phone": (390, 844), "desk": (1280, 860)}
ONE_MINUTE = "document.querySelector('[name=minutes][value=\"1\"]').click()"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="hatch run page:screenshots",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where they are written; it is made")
    parser.add_argument(
        "--calm",
        type=float,
        default=20.0,
        metavar="S",
        help="seconds before the failover, and after it: default %(default)g",
    )
    return parser.parse_args()


def shoot_all(driver: webdriver.Chrome, folder: Path, moment: str) -> None:
    for screen, (width, height) in SCREENS.items():
        for dark in (False, True):
            looks_like(driver, width, height, dark=dark, motion=False)
            shoot(driver, folder / f"{moment}-{screen}-{'dark' if dark else 'light'}.png")


async def play(driver: webdriver.Chrome, cluster: LocalCluster, folder: Path, calm: float) -> None:
    async with running(cluster) as service:
        await asyncio.to_thread(driver.get, service.url)
        await asyncio.sleep(calm)
        await asyncio.to_thread(shoot_all, driver, folder, "before")
        await asyncio.to_thread(command, driver, "Runtime.evaluate", {"expression": ONE_MINUTE})
        old, new = cluster.primary, cluster.replicas[0]
        await asyncio.to_thread(cluster.kill, old)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(shoot_all, driver, folder, "during")
        await asyncio.to_thread(cluster.promote, new)
        await asyncio.sleep(calm / 2)
        await asyncio.to_thread(cluster.rejoin, old)
        await asyncio.sleep(calm / 2)
        await asyncio.to_thread(shoot_all, driver, folder, "after")


def main() -> int:
    """The whole program; returns its exit code."""
    arguments = _arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with LocalCluster(replicas=2) as cluster, chromium() as driver:
        asyncio.run(play(driver, cluster, arguments.folder, arguments.calm))
    return 0
