"""Two processes on one scripted cluster, and clients of their applications."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any, Self, TypeAlias

import httpx

from pyscopg2.asgi import CausalMiddleware
from pyscopg2.asgi.signer import Refusal, Signer
from pyscopg2.asgi.token import Token
from pyscopg2.base import BasePoolManager
from pyscopg2.core.wal import WalPosition
from pyscopg2.testing.fake import FakeAdapter, FakeConnection, FakeNetwork, FakePool

Manager = BasePoolManager[FakePool, FakeConnection]
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
Message = MutableMapping[str, Any]

SECRET = "a secret of the tests: 32 bytes."
COOKIE = "pyscopg2-causal"
FIRST = 0x3000148
"""Where the log is before anything is written, in bytes."""


class Site:
    """A master db1, replicas db2, db3, …, and managers on them, each of which stands for a process.

    ``async with`` it: leaving it ends the managers and asserts that nothing is left.
    """

    def __init__(self, replicas: int = 2, **settings: Any) -> None:
        self.network = FakeNetwork.cluster(replicas)
        self.managers: list[Manager] = []
        self._settings: dict[str, Any] = {"acquire_timeout": 10.0, "refresh_delay": 0.2} | settings

    async def manager(self, network: FakeNetwork | None = None, **settings: Any) -> Manager:
        """One more process; it knows its hosts."""
        network = self.network if network is None else network
        kind = type("PoolManager", (BasePoolManager,), {"adapter": FakeAdapter(network)})
        made: Manager = kind(network.dsn, **(self._settings | settings))
        self.managers.append(made)
        await made.ready()
        return made

    def commit(self) -> None:
        """The master commits something; no replica has replayed it."""
        master = self.network.master
        assert master.lsn is not None
        master.lsn = f"0/{int(master.lsn.partition('/')[2], 16) + 0x100:X}"
        master.snapshot += 1

    def replay(self, *names: str) -> None:
        """These replicas have replayed all of it."""
        for name in names:
            self.network[f"{name}:5432"].lsn = self.network.master.lsn

    @property
    def position(self) -> WalPosition:
        """Of all that was committed so far."""
        master = self.network.master
        assert master.lsn is not None
        lsn = int(master.lsn.partition("/")[2], 16)
        return WalPosition(master.system_identifier, master.timeline, lsn)

    async def write(self, manager: Manager) -> None:
        """What a handler does that writes: db3 replays it at once, the other replicas do not."""
        async with manager.acquire_master():
            self.commit()
            self.replay("db3")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for manager in self.managers:
            await manager.terminate()
        self.network.assert_nothing_left()


async def read(manager: Manager, timeout: float | None = None) -> str:
    """What a handler does that reads: the name of the host that serves it."""
    async with manager.acquire_replica(timeout=timeout) as connection:
        return connection.server.name


def around(app: App, manager: Manager, **settings: Any) -> CausalMiddleware:
    return CausalMiddleware(app, manager, SECRET, **settings)


def token_in(signed: str | bytes) -> Token | Refusal:
    """What stands in it, by a clock that shows 0."""
    signed = signed.encode() if isinstance(signed, str) else signed
    return Signer([SECRET.encode()], float("inf")).read(signed, 1e15)


def signed(token: Token) -> str:
    return Signer([SECRET.encode()], 1).sign(token)


@dataclass(frozen=True)
class Response:
    """What an application has sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def cookie(self) -> str | None:
        """The token that it sets."""
        lines = [value.decode() for name, value in self.headers if name == b"set-cookie"]
        values = [SimpleCookie(line)[COOKIE].value for line in lines if COOKIE in line]
        assert len(values) < 2
        return values[0] if values else None

    @property
    def token(self) -> Token | None:
        if self.cookie is None:
            return None
        token = token_in(self.cookie)
        assert isinstance(token, Token)
        return token


def scope_of(kind: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    method = {"method": "GET"} if kind == "http" else {}
    return method | {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "https" if kind == "http" else "wss",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"service.test"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("service.test", 443),
        "subprotocols": [],
        "state": {},
    }


def with_cookie(*signed: str | None) -> list[tuple[bytes, bytes]]:
    """The headers of a client that has these cookies."""
    return [(b"cookie", f"{COOKIE}={each}".encode()) for each in signed if each is not None]


async def request(
    app: App,
    headers: Iterable[tuple[bytes, bytes]] = (),
    path: str = "/",
    state: dict[str, Any] | None = None,
) -> Response:
    """One request, without a framework; what the application raises is raised."""
    sent: list[Message] = []
    waiting = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        for message in waiting:
            return message
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({**scope_of("http", path, headers), "state": state or {}}, receive, send)
    (start,) = (message for message in sent if message["type"] == "http.response.start")
    body = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    return Response(start["status"], [(k, v) for k, v in start.get("headers", ())], body)


class Websocket:
    """A client's side of one."""

    def __init__(self) -> None:
        self.to_app: asyncio.Queue[Message] = asyncio.Queue()
        self.from_app: asyncio.Queue[Message] = asyncio.Queue()

    async def ask(self, text: str) -> str:
        """Send a message; the next one that comes."""
        await self.to_app.put({"type": "websocket.receive", "text": text})
        message = await self.from_app.get()
        assert message["type"] == "websocket.send", message
        answer: str = message.get("text") or message["bytes"].decode()
        return answer


@contextlib.asynccontextmanager
async def connected(
    app: App, headers: Iterable[tuple[bytes, bytes]] = (), path: str = "/"
) -> AsyncGenerator[Websocket]:
    """A websocket to the application, which accepts it."""
    socket = Websocket()
    scope = scope_of("websocket", path, headers)
    serving = asyncio.ensure_future(app(scope, socket.to_app.get, socket.from_app.put))
    await socket.to_app.put({"type": "websocket.connect"})
    message = await socket.from_app.get()
    assert message["type"] == "websocket.accept", message
    try:
        yield socket
    finally:
        await socket.to_app.put({"type": "websocket.disconnect", "code": 1000})
        await serving


@contextlib.asynccontextmanager
async def lifespan(app: App) -> AsyncGenerator[dict[str, Any]]:
    """As a server begins and ends an application; gives the state that requests get."""
    socket = Websocket()
    scope = scope_of("lifespan", "", ())
    serving = asyncio.ensure_future(app(scope, socket.to_app.get, socket.from_app.put))
    await socket.to_app.put({"type": "lifespan.startup"})
    message = await socket.from_app.get()
    assert message["type"] == "lifespan.startup.complete", message
    try:
        yield scope["state"]
    finally:
        await socket.to_app.put({"type": "lifespan.shutdown"})
        message = await socket.from_app.get()
        assert message["type"] == "lifespan.shutdown.complete", message
        await serving


class Browser:
    """A client with one jar of cookies for all processes, as behind a load balancer."""

    def __init__(self, *apps: App) -> None:
        self.cookies = httpx.Cookies()
        self._apps = apps

    async def __call__(self, method: str, path: str, process: int = 0) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._apps[process])
        async with httpx.AsyncClient(
            transport=transport, base_url="https://service.test", cookies=self.cookies
        ) as client:
            response = await client.request(method, path)
            self.cookies = client.cookies
        return response

    async def reads(self, path: str = "/read", process: int = 0, count: int = 10) -> set[str]:
        """The hosts that serve so many reads."""
        found: set[str] = set()
        for _ in range(count):
            response = await self("GET", path, process)
            assert response.status_code == 200, response.text
            found.add(response.text.strip('"'))
        return found

    @property
    def token(self) -> Token | None:
        """What it carries."""
        value = self.cookies.get(COOKIE)
        if value is None:
            return None
        token = token_in(value)
        assert isinstance(token, Token)
        return token
