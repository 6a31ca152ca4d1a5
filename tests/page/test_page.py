"""The page in Chromium: what it shows, whom it asks, and how it looks."""

import asyncio
import json
from typing import Any

import pytest
from tests.page.conftest import Browser, scripted
from tests.support.waiting import eventually
from tools.status_page.service import WRITERS, running

from pyscopg2.core.events import Event, MasterChanged
from pyscopg2.testing.cluster import LocalCluster
from pyscopg2.testing.fake_server import FakeServer

PROMPTLY = 0.5
"""Seconds from the manager's own knowledge until it is seen."""

WATCH_MASTER = """
window.seen = [];
new MutationObserver(() => {
  window.seen.push([Date.now() / 1000, byId("master").textContent]);
}).observe(byId("master"), { childList: true, characterData: true, subtree: true });
"""


def hosts() -> list[FakeServer]:
    return [FakeServer("db1"), FakeServer("db2", True), FakeServer("db3", True)]


async def test_a_failover_under_load(browser: Browser, cluster: LocalCluster) -> None:
    old, new = cluster.primary, cluster.replicas[0]
    async with running(cluster) as service:
        known: dict[str | None, float] = {}

        def hear(event: Event) -> None:
            if isinstance(event, MasterChanged):
                known[event.after] = event.at

        service.manager.subscribe(hear)
        await browser.open(service.url)
        await browser.shows("#master", old.address)
        await browser.run(WATCH_MASTER)
        await asyncio.to_thread(cluster.kill, old)
        await browser.shows("#master", "none")
        await browser.shows("#hosts", "unavailable")
        await browser.shows("#waiting", str(WRITERS))
        await asyncio.to_thread(cluster.promote, new)
        await browser.shows("#master", new.address)
        seen = {text: at for at, text in await browser.run("window.seen")}
        assert seen["none"] - known[None] < PROMPTLY
        assert seen[new.address] - known[new.address] < PROMPTLY
        # Those who waited were as many as there are writers, each for about as long.
        await browser.shows("#waited", "longest")
        waited = int(await browser.run("waits.reduce((sum, each) => sum + each[2], 0)"))
        longest = float(await browser.run("Math.max(...waits.map((each) => each[1]))"))
        assert waited >= WRITERS
        assert longest > (known[new.address] - known[None]) / 2
        await browser.shows("#waiting", "0")
        await browser.shows("#failovers", "1")
        events = await browser.text("#events")
        assert f"master: {old.address} -> none" in events
        assert f"master: none -> {new.address}" in events
        strips = await browser.run(
            "[...document.querySelectorAll('svg.strip')].map((each) => each.ariaLabel)"
        )
        number = [node.address for node in cluster.nodes].index(old.address)
        assert "master for" in strips[number]
        assert "then unavailable for" in strips[number]
        assert "superseded" in await browser.text("#hosts")
        assert await browser.log("browser") == []


async def test_it_asks_nobody_else_and_breaks_no_rule_of_its_own(browser: Browser) -> None:
    async with scripted(*hosts(), renew_after=1) as (network, _, url):
        await browser.open(url)
        await browser.shows("#link", "live")
        network["db2:5432"].down()
        await browser.shows("#hosts", "unavailable")
        # While a host is down, its checks fail several times a second.
        await browser.shows("#rate", "0")
        await browser.run("document.querySelector('[value=\"10\"]').click()")
        await browser.shows("#axis-start", "10 min ago")
        asked = [
            message["params"]["request"]["url"]
            for message in (
                json.loads(e["message"])["message"] for e in await browser.log("performance")
            )
            if message["method"] == "Network.requestWillBeSent"
        ]
        assert {each for each in asked if not each.startswith("data:")} == {url, f"{url}events"}
        # What it must not do, or could not, would be told here.
        assert await browser.log("browser") == []


async def test_it_goes_on_where_a_stream_has_had_its_time(browser: Browser) -> None:
    async with scripted(*hosts(), renew_after=1) as (network, _, url):
        await browser.open(url)
        await browser.shows("#link", "live")
        await browser.run(
            """
            window.links = [];
            new MutationObserver(() => window.links.push(byId("link").textContent))
              .observe(byId("link"), { childList: true });
            window.first = source;
            """
        )

        async def is_renewed() -> bool:
            return bool(
                await browser.run(
                    "source !== window.first && document.body.dataset.link === 'live'"
                )
            )

        await eventually(is_renewed)
        network["db1:5432"].down()
        await browser.shows("#master", "none")
        assert await browser.run("window.links") == []


async def test_what_servers_say_is_text(browser: Browser) -> None:
    said = "<img src=x onerror='window.harmed = 1'><script>window.harmed = 1</script>"
    async with scripted(*hosts(), title=f"<i>orders</i>{said}") as (network, _, url):
        network["db2:5432"].name = said
        network["db2:5432"].down()
        await browser.open(url)
        await browser.shows("#hosts", said)
        await browser.shows("#events", said)
        await browser.shows("#title", f"<i>orders</i>{said}")
        assert await browser.run("window.harmed === undefined")
        assert (
            await browser.run("document.querySelectorAll('main img, main script, header i').length")
            == 0
        )


async def test_a_server_that_is_gone_and_comes_back(browser: Browser) -> None:
    async with scripted(*hosts(), title="orders") as (_, __, url):
        await browser.open(url)
        await browser.shows("#link", "live")
    await browser.shows("#link", "disconnected since")
    # What was known is shown still.
    assert "db1:5432" in await browser.text("#master")
    port = int(url.rstrip("/").rpartition(":")[2])
    async with scripted(*hosts(), port=port, title="orders, anew"):
        await browser.shows("#link", "live")
        await browser.shows("#title", "orders, anew")
        await browser.shows("#hosts", "replica")


async def test_a_stream_that_is_refused_is_asked_for_again(browser: Browser) -> None:
    """Where the answer is no stream, browsers try no more by themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyscopg2.asgi.status_page.MOST", 0)
        async with scripted(*hosts()) as (_, __, url):
            await browser.open(url)
            await browser.shows("#link", "disconnected since")
            patch.undo()
            await browser.shows("#link", "live")


LONG = "db-with-a-long-name.eu-central-1.production.internal"


@pytest.mark.parametrize("width", [360, 390, 760, 761, 1280, 1400])
async def test_it_fits_the_screen(browser: Browser, width: int) -> None:
    servers = [FakeServer(LONG), FakeServer("db2", True), FakeServer("db3", True)]
    async with scripted(*servers, title=LONG) as (network, _, url):
        await browser.open(url, width, 800)
        await browser.shows("#hosts", "master")
        network.failover()
        await browser.shows("#hosts", "superseded")
        found: Any = await browser.run(
            """({
                page: document.documentElement.scrollWidth,
                // Of what lies beside what it is in.
                out: [...document.querySelectorAll("main *")].filter((each) => {
                    const box = each.getBoundingClientRect();
                    return box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
                }).length,
            })"""
        )
        assert found == {"page": width, "out": 0}


async def test_light_and_dark_and_without_motion(browser: Browser) -> None:
    async with scripted(*hosts()) as (_, __, url):
        await browser.open(url)
        await browser.shows("#hosts", "master")
        grounds: list[str] = []
        for dark in (False, True):
            await browser.look(1280, 900, dark=dark)
            grounds.append(
                str(await browser.run("getComputedStyle(document.body).backgroundColor"))
            )
        assert grounds == ["rgb(244, 245, 246)", "rgb(20, 23, 26)"]
        moves = "getComputedStyle(document.querySelector('.meter i')).transitionDuration"
        assert await browser.run(moves) == "0.3s"
        await browser.look(1280, 900, dark=False, motion=False)
        assert await browser.run(moves) == "0s"


@pytest.mark.parametrize("width", [390, 1280])
async def test_what_those_hear_who_do_not_see(browser: Browser, width: int) -> None:
    """By Chromium's own tree of what screen readers are told."""
    async with scripted(*hosts()) as (_, __, url):
        await browser.open(url, width)
        await browser.shows("#hosts", "master")
        heard = await browser.heard()
        assert {("table", "Hosts"), ("rowheader", "db1:5432"), ("heading", "Hosts")} <= set(heard)
        assert any(role == "image" and "master for" in name for role, name in heard)
        assert await browser.run("document.querySelector('[aria-live] #master').textContent")
        # By words, not by colour alone.
        roles = await browser.run(
            "[...document.querySelectorAll('td.role')].map((e) => e.textContent)"
        )
        assert roles == ["master", "replica", "replica"]
