"""The status page behind a real server: its end, frameworks, and a failover on a real cluster."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from litestar import Litestar, asgi
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from tests.asgi.served import Message, following, served, until
from tests.asgi.support import App, Manager, Site
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.asgi import Live, Ready, StatusPage
from pyscopg2.asyncpg import PoolManager
from pyscopg2.core.events import Event, MasterChanged
from pyscopg2.testing.cluster import LocalCluster

LONG = 3600.0
"""Seconds that no test waits for."""

WRITERS = 4


def others() -> "set[asyncio.Task[Any]]":
    """Those tasks that are no monitor's."""
    me = asyncio.current_task()
    return {t for t in asyncio.all_tasks() if t is not me and "monitor" not in t.get_name()}


async def test_a_page_that_is_left_leaves_nothing() -> None:
    async with Site() as site:
        page = StatusPage(await site.manager(), renew_after=LONG)
        async with served(page) as there:
            before = len(others())
            async with following(there) as told:
                await until(told, "snapshot")
                assert len(others()) > before
            await eventually(lambda: len(others()) == before)


async def test_a_server_ends_soon_though_pages_are_open() -> None:
    """Without any setting of its own."""
    async with Site() as site:
        page = StatusPage(await site.manager(), renew_after=1.5)
        async with served(page) as there, following(there) as told:
            await until(told, "snapshot")
            assert there.server.config.timeout_graceful_shutdown is None
            await there.end()
            assert (await until(told, "renew")).data is None


async def test_a_server_ends_at_once_where_the_page_is_closed() -> None:
    async with Site() as site:
        page = StatusPage(await site.manager(), renew_after=LONG)
        async with served(page) as there, following(there) as told:
            await until(told, "snapshot")
            page.close()
            await there.end()


async def test_a_server_ends_by_its_own_limit() -> None:
    async with Site() as site:
        page = StatusPage(await site.manager(), renew_after=LONG)
        async with served(page, timeout_graceful_shutdown=1) as there:
            with contextlib.suppress(httpx.RemoteProtocolError):
                async with following(there) as told:
                    await until(told, "snapshot")
                    await there.end()
            await eventually(lambda: not others())


async def test_a_server_ends_where_the_manager_is_closed() -> None:
    async with Site() as site:
        manager = await site.manager()
        page = StatusPage(manager, renew_after=LONG)
        async with served(page) as there, following(there) as told:
            await until(told, "snapshot")
            await manager.close()
            await until(told, "event", kind="ManagerClosed")
            await there.end()


class Plain(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["x-plain"] = "seen"
        return response


def in_starlette(manager: Manager) -> App:
    app = Starlette(
        routes=[
            Mount("/live", Live()),
            Mount("/ready", Ready(manager)),
            Mount("/status", StatusPage(manager)),
        ]
    )
    app.add_middleware(Plain)
    return app


def in_fastapi(manager: Manager) -> App:
    app = FastAPI()
    app.mount("/live", Live())
    app.mount("/ready", Ready(manager))
    app.mount("/status", StatusPage(manager))
    return app


def in_another_mount(manager: Manager) -> App:
    return Starlette(routes=[Mount("/inner", in_fastapi(manager))])


def in_litestar(manager: Manager) -> App:
    return Litestar(
        [
            asgi("/live", is_mount=True, copy_scope=True)(Live()),
            asgi("/ready", is_mount=True, copy_scope=True)(Ready(manager)),
            asgi("/status", is_mount=True, copy_scope=True)(StatusPage(manager)),
        ]
    )


@pytest.mark.parametrize(
    ("framework", "below"),
    [(in_starlette, ""), (in_fastapi, ""), (in_another_mount, "/inner"), (in_litestar, "")],
    ids=["Starlette", "FastAPI", "nested", "Litestar"],
)
async def test_in_frameworks(framework: Any, below: str) -> None:
    async with Site() as site:
        manager = await site.manager()
        async with served(framework(manager)) as there:
            there.client.follow_redirects = True
            assert (await there.client.get(f"{below}/live")).json() == {"live": True}
            assert (await there.client.get(f"{below}/ready")).json()["ready"] is True
            for path in ("/status", "/status/"):
                document = await there.client.get(below + path)
                assert document.status_code == 200
                assert "<h1" in document.text
            assert (await there.client.get(f"{below}/status/else")).status_code == 404
            async with following(there, f"{below}/status/events") as told:
                await until(told, "snapshot")
                site.network["db2:5432"].down()
                await until(told, "event", address="db2:5432", role="unavailable")
            site.network["db1:5432"].down()
            await eventually(lambda: not manager.topology.masters)
            assert (await there.client.get(f"{below}/ready")).status_code == 503


@contextlib.asynccontextmanager
async def loaded(manager: PoolManager) -> AsyncGenerator[None]:
    """In the block some write and some read, whatever becomes of it."""

    async def work(read_only: bool) -> None:
        while True:
            with contextlib.suppress(Exception):
                async with manager.acquire(read_only) as connection:
                    await connection.execute("SELECT 1")
            await asyncio.sleep(0.01)

    workers = [asyncio.ensure_future(work(number >= WRITERS)) for number in range(2 * WRITERS)]
    try:
        yield
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def heard_until_one_waited(
    told: AsyncIterator[Message], master: str, lost_at: float
) -> tuple[Message, float]:
    """The news of that master, and the longest wait that was told of, before the news or after:
    of one that waited for most of the time."""
    found: Message | None = None
    longest = 0.0
    async with asyncio.timeout(PATIENCE):
        async for each in told:
            if each.event == "state":
                longest = max(longest, each.data["waits"]["longest"])
                assert found is None or each.data["topology"]["master"] == master
            elif each.data.get("kind") == "MasterChanged" and each.data["master"] == master:
                found = each
            if found is not None and longest > (found.data["at"] - lost_at) / 2:
                return found, longest
    raise AssertionError("the stream ended")


async def test_a_failover_of_a_real_cluster() -> None:
    with LocalCluster(replicas=2) as cluster:
        old, new = cluster.primary, cluster.replicas[0]
        async with PoolManager(cluster.dsn, PATIENCE) as manager:
            page = StatusPage(manager, renew_after=LONG)
            await manager.ready()
            heard: list[tuple[float, str | None]] = []

            def hear(event: Event) -> None:
                if isinstance(event, MasterChanged):
                    heard.append((event.at, event.after))

            async with served(page) as there, loaded(manager), following(there) as told:
                snapshot = (await until(told, "snapshot")).data
                assert snapshot["topology"]["master"] == old.address
                manager.subscribe(hear)
                await asyncio.to_thread(cluster.kill, old)
                lost = await until(told, "event", kind="MasterChanged", master=None)
                await asyncio.to_thread(cluster.promote, new)
                found, longest = await heard_until_one_waited(told, new.address, lost.data["at"])
                assert found.data["text"] == f"master: none -> {new.address}"
                assert longest > (found.data["at"] - lost.data["at"]) / 2
                page.close()
            # As the manager told it: none is missing, none is told twice, and each has its time.
            assert heard == [(each.data["at"], each.data["master"]) for each in (lost, found)]
