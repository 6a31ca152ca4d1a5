"""One browser and one cluster for all tests of the page."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest
from selenium.webdriver import Chrome
from tests.support.waiting import eventually

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.status_page.browser import chromium, command, looks_like, read_log
from tools.status_page.service import serving

from pyscopg2.asgi import StatusPage
from pyscopg2.base import BasePoolManager
from pyscopg2.testing.cluster import LocalCluster
from pyscopg2.testing.contracts.healing import heal
from pyscopg2.testing.fake import FakeAdapter, FakeConnection, FakeNetwork, FakePool
from pyscopg2.testing.fake_server import FakeServer

T = TypeVar("T")
FakeManager: TypeAlias = BasePoolManager[FakePool, FakeConnection]


class Browser:
    """Chromium, from an event loop that must not stand still meanwhile."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    async def __call__(self, action: Callable[[Chrome], T]) -> T:
        return await asyncio.to_thread(action, self._driver)

    async def open(
        self, url: str, width: int = 1280, height: int = 900, *, dark: bool = False
    ) -> None:
        """Nothing is left of the page before."""

        def act(driver: Chrome) -> None:
            driver.get("about:blank")
            for kind in ("browser", "performance"):
                read_log(driver, kind)
            looks_like(driver, width, height, dark=dark)
            driver.get(url)

        await self(act)

    async def look(self, width: int, height: int, *, dark: bool, motion: bool = True) -> None:
        await self(lambda driver: looks_like(driver, width, height, dark=dark, motion=motion))

    async def run(self, script: str) -> Any:
        """What a script of ours finds in the page, which its policy does not hinder."""
        found = await self(
            lambda driver: command(
                driver,
                "Runtime.evaluate",
                {"expression": script, "returnByValue": True, "awaitPromise": True},
            )
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def text(self, selector: str) -> str:
        return str(await self.run(f"document.querySelector({selector!r}).innerText"))

    async def shows(self, selector: str, text: str) -> None:
        """Wait until it does."""

        async def is_shown() -> bool:
            return text in await self.text(selector)

        try:
            await eventually(is_shown)
        except AssertionError as error:
            raise AssertionError(f"{await self.text(selector)!r} without {text!r}") from error

    async def heard(self) -> list[tuple[str, str]]:
        """The role and the name of each thing that a screen reader is told of."""
        tree = await self(lambda driver: command(driver, "Accessibility.getFullAXTree", {}))
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in tree["nodes"]
            if not node["ignored"]
        ]

    async def log(self, kind: str) -> list[dict[str, Any]]:
        """What was written there since this was asked last: ``browser``, ``performance``."""
        return await self(lambda driver: read_log(driver, kind))


@pytest.fixture(scope="session")
def driver() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture
async def browser(driver: Chrome) -> AsyncIterator[Browser]:
    """When the test is over, no page is open."""
    browser = Browser(driver)
    yield browser
    await browser(lambda driver: driver.get("about:blank"))


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=2) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: LocalCluster) -> LocalCluster:
    """A primary and two replicas, all well."""
    heal(shared_cluster)
    return shared_cluster


@contextlib.asynccontextmanager
async def scripted(
    *servers: FakeServer, port: int = 0, **settings: Any
) -> AsyncGenerator[tuple[FakeNetwork, FakeManager, str]]:
    """A manager on scripted hosts, and the address of its page. ``port``: 0 for any."""
    network = FakeNetwork({f"{server.name}:5432": server for server in servers})
    kind = type("PoolManager", (BasePoolManager,), {"adapter": FakeAdapter(network)})
    manager: FakeManager = kind(network.dsn, refresh_delay=0.2)
    page = StatusPage(manager, **settings)
    async with manager:
        await manager.ready()
        async with serving(page, port) as there:
            yield network, manager, f"http://127.0.0.1:{there}/"
