"""In Litestar: handlers, synchronous ones in threads too, dependencies, background, streams."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from litestar import Litestar, Request, Response, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.connection import WebSocket
from litestar.di import NamedDependency, Provide
from litestar.enums import MediaType
from litestar.middleware import DefineMiddleware
from litestar.response import Stream
from tests.asgi.support import SECRET, Browser, Manager, Site, connected, lifespan, read

from pyscopg2.asgi import CausalMiddleware
from pyscopg2.asgi.reach import Reach


def manager_of(scope: Any) -> Manager:
    manager: Manager = scope["litestar_app"].state.manager
    return manager


def service(site: Site) -> Litestar:
    """Makes its manager in its lifespan."""
    loop = asyncio.get_running_loop()

    async def begin(app: Litestar) -> None:
        app.state.manager = await site.manager()

    def in_loop(work: Any) -> Any:
        """From a thread."""
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    @post("/write", media_type=MediaType.TEXT)
    async def write(request: Request[Any, Any, Any]) -> str:
        await site.write(request.app.state.manager)
        return "written"

    @get("/read", media_type=MediaType.TEXT)
    async def reads(request: Request[Any, Any, Any]) -> str:
        return await read(request.app.state.manager)

    @post("/thread/write", media_type=MediaType.TEXT, sync_to_thread=True)
    def thread_write(request: Request[Any, Any, Any]) -> str:
        in_loop(site.write(request.app.state.manager))
        return "written"

    @get("/thread/read", media_type=MediaType.TEXT, sync_to_thread=True)
    def thread_read(request: Request[Any, Any, Any]) -> str:
        return str(in_loop(read(request.app.state.manager)))

    def found(request: Request[Any, Any, Any]) -> str:
        return str(in_loop(read(request.app.state.manager)))

    def written(request: Request[Any, Any, Any]) -> bool:
        in_loop(site.write(request.app.state.manager))
        return True

    async def writing(request: Request[Any, Any, Any]) -> AsyncGenerator[bool]:
        async with request.app.state.manager.acquire_master():
            yield True

    @post(
        "/dependency/write",
        media_type=MediaType.TEXT,
        dependencies={"wrote": Provide(written, sync_to_thread=True)},
    )
    async def dependency_write(wrote: NamedDependency[bool]) -> str:
        return str(wrote)

    @get(
        "/dependency/read",
        media_type=MediaType.TEXT,
        dependencies={"host": Provide(found, sync_to_thread=True)},
    )
    async def dependency_read(host: NamedDependency[str]) -> str:
        return host

    @post("/generator/write", media_type=MediaType.TEXT, dependencies={"block": Provide(writing)})
    async def generator_write(block: NamedDependency[bool]) -> str:
        site.commit()
        site.replay("db3")
        return str(block)

    @post("/background", media_type=MediaType.TEXT)
    async def background(request: Request[Any, Any, Any]) -> Response[str]:
        work = BackgroundTask(site.write, request.app.state.manager)
        return Response("accepted", background=work)

    @post("/stream/write")
    async def stream(request: Request[Any, Any, Any]) -> Stream:
        await site.write(request.app.state.manager)

        async def body() -> AsyncGenerator[str]:
            for _ in range(10):
                yield await read(request.app.state.manager) + "\n"

        return Stream(body())

    @websocket("/socket")
    async def socket(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        async for text in socket.iter_data("text"):
            if text == "write":
                await site.write(socket.app.state.manager)
            await socket.send_text(await read(socket.app.state.manager))

    return Litestar(
        [
            write,
            reads,
            thread_write,
            thread_read,
            dependency_write,
            dependency_read,
            generator_write,
            background,
            stream,
            socket,
        ],
        on_startup=[begin],
        middleware=[DefineMiddleware(CausalMiddleware, manager=manager_of, secret=SECRET)],
        openapi_config=None,
    )


@pytest.mark.parametrize("kind", ["", "thread/", "dependency/"])
async def test_what_one_process_writes_another_one_reads(kind: str) -> None:
    async with Site() as site:
        here, there = service(site), service(site)
        async with lifespan(here), lifespan(there):
            browser = Browser(here, there)
            assert await browser.reads(f"/{kind}read", count=30) == {"db2", "db3"}
            for _ in range(3):
                await browser("POST", f"/{kind}write", 0)
                assert browser.token is not None
                assert browser.token.reach == Reach(site.position)
                assert await browser.reads(f"/{kind}read", 1) == {"db3"}
                assert await browser.reads(f"/{kind}read", 0) == {"db3"}


async def test_streams() -> None:
    async with Site() as site:
        app = service(site)
        async with lifespan(app):
            browser = Browser(app)
            response = await browser("POST", "/stream/write")
            assert response.text == "db3\n" * 10
            assert browser.token is not None
            assert browser.token.reach == Reach(site.position)


async def test_a_dependency_that_yields() -> None:
    async with Site() as site:
        here, there = service(site), service(site)
        async with lifespan(here), lifespan(there):
            browser = Browser(here, there)
            await browser("POST", "/generator/write")
            assert browser.token is not None
            assert await browser.reads(process=1) == {"db3"}
            assert browser.token.reach == Reach(site.position)


async def test_background_tasks_are_not_told_of() -> None:
    async with Site() as site:
        app = service(site)
        async with lifespan(app):
            browser = Browser(app)
            await browser("POST", "/background")
            assert browser.token is None


async def test_websockets() -> None:
    async with Site() as site:
        app = service(site)
        async with lifespan(app):
            browser = Browser(app)
            await browser("POST", "/write")
            carried = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            async with connected(app, [(b"cookie", carried.encode())], "/socket") as socket:
                assert {await socket.ask("read") for _ in range(10)} == {"db3"}
            site.replay("db2", "db3")
            async with connected(app, path="/socket") as socket:
                assert {await socket.ask("read") for _ in range(30)} == {"db2", "db3"}
                assert await socket.ask("write") == "db3"
                assert {await socket.ask("read") for _ in range(10)} == {"db3"}
