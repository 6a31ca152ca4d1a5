"""Applications behind a real server, and the server-sent events that they tell."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from tests.asgi.support import App
from tests.support.waiting import PATIENCE


class Served:
    """An application behind uvicorn, and a client of it."""

    def __init__(self, server: uvicorn.Server, task: "asyncio.Task[None]", url: str) -> None:
        self.server = server
        self.url = url
        self.client = httpx.AsyncClient(base_url=url, timeout=PATIENCE)
        self._task = task

    async def end(self) -> None:
        """As SIGTERM has it end; returns when it has."""
        self.server.should_exit = True
        async with asyncio.timeout(PATIENCE):
            await self._task


@contextlib.asynccontextmanager
async def served(app: App, **settings: Any) -> AsyncGenerator[Served]:
    """In the block it serves."""
    config = uvicorn.Config(app, log_level="critical", ws="none", **settings)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.ensure_future(server.serve([listening]))
        there = Served(server, task, f"http://127.0.0.1:{listening.getsockname()[1]}")
        try:
            while not server.started and not task.done():
                await asyncio.sleep(0.01)
            yield there
        finally:
            await there.client.aclose()
            if not task.done():
                server.force_exit = True
                await there.end()


@dataclass(frozen=True)
class Message:
    """A server-sent event."""

    event: str
    data: Any


async def messages(lines: AsyncIterator[str]) -> AsyncIterator[Message]:
    """Those of a stream, until it ends. A line that is none is an `AssertionError`."""
    event = ""
    async for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            event = value
        elif field == "data":
            yield Message(event, json.loads(value))
        else:
            assert field in ("", "retry"), line


@contextlib.asynccontextmanager
async def following(there: Served, path: str = "/events") -> AsyncGenerator[AsyncIterator[Message]]:
    """The messages of a stream."""
    async with there.client.stream("GET", path) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        yield messages(response.aiter_lines())


async def until(told: AsyncIterator[Message], event: str, **data: Any) -> Message:
    """The next message of that event which has these data."""
    async with asyncio.timeout(PATIENCE):
        async for message in told:
            if message.event == event and all(
                message.data.get(name, ...) == value for name, value in data.items()
            ):
                return message
    raise AssertionError(f"the stream ended without {event} {data}")
