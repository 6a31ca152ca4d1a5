"""In Starlette: its middleware, thread pool, background tasks, streams and websockets."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import anyio.from_thread
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from tests.asgi.support import (
    COOKIE,
    SECRET,
    Browser,
    Manager,
    Site,
    connected,
    lifespan,
    read,
    scope_of,
    signed,
)

from pyscopg2.asgi import CausalMiddleware, Counts
from pyscopg2.asgi.reach import Reach
from pyscopg2.asgi.token import Token

Endpoint = Callable[[Request], Awaitable[Response]]


class Plain(BaseHTTPMiddleware):
    """Runs what is inside in a task of its own, and passes its response on."""

    async def dispatch(self, request: Request, call_next: Callable[..., Any]) -> Response:
        response: Response = await call_next(request)
        response.headers["x-plain"] = "seen"
        return response


def service(site: Site, manager: Manager) -> list[Any]:
    """The routes of one process."""

    async def write(_: Request) -> Response:
        await site.write(manager)
        return PlainTextResponse("written")

    async def reads(_: Request) -> Response:
        return PlainTextResponse(await read(manager))

    def thread_write(_: Request) -> Response:
        anyio.from_thread.run(site.write, manager)
        return PlainTextResponse("written")

    def thread_read(_: Request) -> Response:
        return PlainTextResponse(anyio.from_thread.run(read, manager))

    async def background(_: Request) -> Response:
        async def work() -> None:
            await site.write(manager)
            assert {await read(manager) for _ in range(10)} == {"db3"}

        return PlainTextResponse("accepted", background=BackgroundTask(work))

    async def stream_after_write(_: Request) -> Response:
        await site.write(manager)

        async def body() -> AsyncGenerator[str]:
            for _ in range(10):
                yield await read(manager) + "\n"

        return StreamingResponse(body())

    async def write_in_stream(_: Request) -> Response:
        async def body() -> AsyncGenerator[str]:
            await site.write(manager)
            for _ in range(10):
                yield await read(manager) + "\n"

        return StreamingResponse(body())

    async def fail(_: Request) -> Response:
        await site.write(manager)
        raise KeyError

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            if text == "write":
                await site.write(manager)
            await websocket.send_text(await read(manager))

    return [
        Route("/write", write, methods=["POST"]),
        Route("/read", reads),
        Route("/thread-write", thread_write, methods=["POST"]),
        Route("/thread-read", thread_read),
        Route("/background", background, methods=["POST"]),
        Route("/stream-after-write", stream_after_write, methods=["POST"]),
        Route("/write-in-stream", write_in_stream, methods=["POST"]),
        Route("/fail", fail, methods=["POST"]),
        WebSocketRoute("/socket", socket),
    ]


def causal(manager: Manager) -> Middleware:
    return Middleware(CausalMiddleware, manager=manager, secret=SECRET)


PLAIN = Middleware(Plain)


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        pytest.param(0, 0, id="alone"),
        pytest.param(1, 0, id="within BaseHTTPMiddleware"),
        pytest.param(0, 1, id="around BaseHTTPMiddleware"),
        pytest.param(2, 2, id="between them"),
    ],
)
@pytest.mark.parametrize("kind", ["", "thread-"])
async def test_what_one_process_writes_another_one_reads(
    kind: str, before: int, behind: int
) -> None:
    async with Site() as site:
        apps: list[Starlette] = []
        for manager in (await site.manager(), await site.manager()):
            stack = [*[PLAIN] * before, causal(manager), *[PLAIN] * behind]
            apps.append(Starlette(routes=service(site, manager), middleware=stack))
        browser = Browser(*apps)
        assert await browser.reads(count=30) == {"db2", "db3"}
        for _ in range(3):
            await browser("POST", f"/{kind}write", 0)
            assert browser.token is not None
            assert browser.token.reach == Reach(site.position)
            assert await browser.reads(f"/{kind}read", 1) == {"db3"}
            assert await browser.reads(f"/{kind}read", 0) == {"db3"}
        await browser("POST", f"/{kind}write", 1)
        assert await browser.reads(f"/{kind}read", 0) == {"db3"}


@pytest.mark.parametrize("stack", [[], [PLAIN]], ids=["alone", "around BaseHTTPMiddleware"])
async def test_background_tasks_see_what_they_write_and_their_client_is_not_told(
    stack: list[Middleware],
) -> None:
    async with Site() as site:
        manager = await site.manager()
        app = Starlette(routes=service(site, manager), middleware=stack)
        middleware = CausalMiddleware(app, manager, SECRET)
        browser = Browser(middleware)
        response = await browser("POST", "/background")
        assert response.text == "accepted"
        assert browser.token is None
        assert middleware.counts == Counts(untold=1)


@pytest.mark.parametrize("stack", [[], [PLAIN]], ids=["alone", "around BaseHTTPMiddleware"])
async def test_streams(stack: list[Middleware]) -> None:
    async with Site() as site:
        manager = await site.manager()
        app = Starlette(routes=service(site, manager), middleware=stack)
        middleware = CausalMiddleware(app, manager, SECRET)
        browser = Browser(middleware)
        response = await browser("POST", "/stream-after-write")
        assert response.text == "db3\n" * 10
        assert browser.token is not None
        assert browser.token.reach == Reach(site.position)
        assert middleware.counts == Counts(told=1)
        browser = Browser(middleware)
        response = await browser("POST", "/write-in-stream")
        assert response.text == "db3\n" * 10
        if stack:
            # What is inside runs ahead of its response, and writes already when that starts.
            assert browser.token is not None
            assert browser.token.reach == Reach(None, waits=True)
        else:
            assert browser.token is None
            assert middleware.counts == Counts(told=1, untold=1)


async def test_websockets() -> None:
    async with Site() as site:
        manager = await site.manager()
        app = Starlette(routes=service(site, manager), middleware=[PLAIN, causal(manager)])
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


async def test_an_error_that_starlette_answers_is_told_from_around_it_alone() -> None:
    async with Site() as site:
        manager = await site.manager()
        for middleware, told in (([causal(manager)], False), ([], True)):
            app: Any = Starlette(routes=service(site, manager), middleware=middleware)
            if told:
                app = CausalMiddleware(app, manager, SECRET)
            browser = Browser(app)
            # Starlette sends its response, and raises the error for the server to log.
            with pytest.raises(KeyError):
                await browser("POST", "/fail")
            statuses: list[bool] = []

            async def send(message: Any, statuses: list[bool] = statuses) -> None:
                if message["type"] == "http.response.start":
                    assert message["status"] == 500
                    statuses.append(any(name == b"set-cookie" for name, _ in message["headers"]))

            async def receive() -> Any:
                return {"type": "http.request"}

            with pytest.raises(KeyError):
                await app({**scope_of("http", "/fail", ()), "method": "POST"}, receive, send)
            assert statuses == [told]


@pytest.mark.parametrize("where", ["state", "app"])
async def test_a_manager_that_the_lifespan_makes(where: str) -> None:
    async with Site() as site:

        @contextlib.asynccontextmanager
        async def making(app: Starlette) -> AsyncGenerator[dict[str, Any]]:
            app.state.manager = manager = await site.manager()
            app.router.routes.extend(service(site, manager))
            yield {"manager": manager}

        async def read_there(request: Request) -> Response:
            return PlainTextResponse(await read(request.app.state.manager))

        def from_state(scope: Any) -> Manager:
            manager: Manager = scope["state"]["manager"]
            return manager

        def from_app(scope: Any) -> Manager:
            manager: Manager = scope["app"].state.manager
            return manager

        app = Starlette(
            routes=[Mount("/inner", routes=[Route("/read", read_there)])], lifespan=making
        )
        find = from_state if where == "state" else from_app
        app.add_middleware(CausalMiddleware, manager=find, secret=SECRET)
        async with lifespan(app) as state:

            async def served(scope: Any, receive: Any, send: Any) -> None:
                """As a server does, which hands the lifespan's state on."""
                await app({**scope, "state": dict(state)}, receive, send)

            browser = Browser(served)
            await browser("POST", "/write")
            assert browser.token is not None
            assert await browser.reads() == {"db3"}
            assert await browser.reads("/inner/read") == {"db3"}


async def test_a_client_that_leaves_leaves_nothing_behind() -> None:
    """Its request is cancelled while a read waits for what the client has written."""
    async with Site() as site:
        manager = await site.manager()
        app = Starlette(routes=service(site, manager), middleware=[PLAIN, causal(manager), PLAIN])
        browser = Browser(app)
        site.commit()
        token = Token(int(time.time()), Reach(site.position))
        browser.cookies.set(COOKIE, signed(token), "service.test")
        serving = asyncio.ensure_future(browser("GET", "/read"))
        await asyncio.sleep(0.1)
        assert not serving.done()
        serving.cancel()
        await asyncio.wait([serving])
        assert serving.cancelled()
