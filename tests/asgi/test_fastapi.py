"""In FastAPI: endpoints and dependencies, synchronous ones too, and those that yield."""

from collections.abc import AsyncGenerator, Generator
from typing import Annotated, Any

import anyio.from_thread
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from tests.asgi.support import SECRET, Browser, Manager, Site, connected, read

from pyscopg2.asgi import CausalMiddleware
from pyscopg2.asgi.reach import Reach


class Plain(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


def service(site: Site, manager: Manager) -> FastAPI:
    app = FastAPI()
    app.add_middleware(Plain)
    app.add_middleware(CausalMiddleware, manager=manager, secret=SECRET)
    app.add_middleware(Plain)

    # Endpoints

    @app.post("/write")
    async def write() -> str:
        await site.write(manager)
        return "written"

    @app.get("/read")
    async def reads() -> str:
        return await read(manager)

    @app.post("/thread/write")
    def thread_write() -> str:
        anyio.from_thread.run(site.write, manager)
        return "written"

    @app.get("/thread/read")
    def thread_read() -> str:
        return anyio.from_thread.run(read, manager)

    # Dependencies that return

    async def written() -> None:
        await site.write(manager)

    def written_in_thread() -> None:
        anyio.from_thread.run(site.write, manager)

    async def found() -> str:
        return await read(manager)

    def found_in_thread() -> str:
        return anyio.from_thread.run(read, manager)

    @app.post("/dependency/write", dependencies=[Depends(written)])
    def dependency_write() -> str:
        return "written"

    @app.get("/dependency/read")
    def dependency_read(host: Annotated[str, Depends(found)]) -> str:
        return host

    @app.post("/thread-dependency/write", dependencies=[Depends(written_in_thread)])
    async def thread_dependency_write() -> str:
        return "written"

    @app.get("/thread-dependency/read")
    async def thread_dependency_read(host: Annotated[str, Depends(found_in_thread)]) -> str:
        return host

    # Dependencies that yield

    async def writing() -> AsyncGenerator[None]:
        async with manager.acquire_master():
            yield

    def writing_in_thread() -> Generator[None]:
        async def enter() -> Any:
            return await manager.acquire_master()

        connection = anyio.from_thread.run(enter)
        try:
            yield
        finally:
            anyio.from_thread.run(manager.release, connection)

    def committed() -> str:
        """What the user commits before the response."""
        site.commit()
        site.replay("db3")
        return "written"

    @app.post("/request/write", dependencies=[Depends(writing)])
    async def request_write() -> str:
        return committed()

    @app.post("/function/write", dependencies=[Depends(writing, scope="function")])
    async def function_write() -> str:
        return committed()

    @app.post("/thread-request/write", dependencies=[Depends(writing_in_thread)])
    def thread_request_write() -> str:
        return committed()

    @app.post("/thread-function/write", dependencies=[Depends(writing_in_thread, scope="function")])
    def thread_function_write() -> str:
        return committed()

    # The rest

    @app.post("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(site.write, manager)
        return await read(manager)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, host: Annotated[str, Depends(found_in_thread)]) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            if text == "write":
                await site.write(manager)
            await websocket.send_text(host if text == "dependency" else await read(manager))

    _ = (write, reads, thread_write, thread_read, dependency_write, dependency_read)
    _ = (thread_dependency_write, thread_dependency_read, request_write, function_write)
    _ = (thread_request_write, thread_function_write, background, socket)
    return app


async def two_processes(site: Site) -> Browser:
    return Browser(*[service(site, await site.manager()) for _ in range(2)])


@pytest.mark.parametrize("kind", ["", "thread/", "dependency/", "thread-dependency/"])
async def test_what_one_process_writes_another_one_reads(kind: str) -> None:
    async with Site() as site:
        browser = await two_processes(site)
        assert await browser.reads(f"/{kind}read", count=30) == {"db2", "db3"}
        for _ in range(3):
            await browser("POST", f"/{kind}write", 0)
            assert browser.token is not None
            assert browser.token.reach == Reach(site.position)
            assert await browser.reads(f"/{kind}read", 1) == {"db3"}
            assert await browser.reads(f"/{kind}read", 0) == {"db3"}


@pytest.mark.parametrize("kind", ["", "thread-"])
async def test_a_dependency_that_ends_before_the_response(kind: str) -> None:
    async with Site() as site:
        browser = await two_processes(site)
        await browser("POST", f"/{kind}function/write")
        assert browser.token is not None
        assert browser.token.reach == Reach(site.position)
        assert await browser.reads(process=1) == {"db3"}


@pytest.mark.parametrize("kind", ["", "thread-"])
async def test_a_dependency_that_ends_after_the_response(kind: str) -> None:
    """As it is where nothing else is said: what was committed in it is covered all the same."""
    async with Site() as site:
        browser = await two_processes(site)
        for _ in range(3):
            await browser("POST", f"/{kind}request/write")
            assert browser.token is not None
            assert browser.token.reach.waits
            assert await browser.reads(process=1) == {"db3"}
            assert browser.token.reach == Reach(site.position), "the first read has found it out"


async def test_background_tasks_are_not_told_of() -> None:
    async with Site() as site:
        browser = await two_processes(site)
        await browser("POST", "/background")
        assert browser.token is None


async def test_websockets() -> None:
    async with Site() as site:
        manager = await site.manager()
        app = service(site, manager)
        browser = Browser(app)
        await browser("POST", "/write")
        carried = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        for _ in range(5):
            async with connected(app, [(b"cookie", carried.encode())], "/socket") as socket:
                assert await socket.ask("dependency") == "db3"
                assert {await socket.ask("read") for _ in range(10)} == {"db3"}
        site.replay("db2", "db3")
        async with connected(app, path="/socket") as socket:
            assert {await socket.ask("read") for _ in range(30)} == {"db2", "db3"}
            assert await socket.ask("write") == "db3"
            assert {await socket.ask("read") for _ in range(10)} == {"db3"}
