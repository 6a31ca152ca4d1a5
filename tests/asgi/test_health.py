"""The endpoints that a supervisor asks, without a framework, in virtual time."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.asgi.support import (
    App,
    Manager,
    Response,
    Site,
    connected,
    lifespan,
    request,
    scope_of,
)
from tests.support.virtual import now, virtual
from tests.support.waiting import eventually

from pyscopg2.asgi import Live, Ready, StatusPage
from pyscopg2.asgi.endpoint import Endpoint
from pyscopg2.base import BasePoolManager
from pyscopg2.testing.fake import FakeAdapter, FakeNetwork


def never(_: Any) -> Manager:
    raise AssertionError


async def asked(app: App, method: str = "GET", path: str = "/") -> Response:
    async def with_method(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "method": method}, receive, send)

    return await request(with_method, path=path)


async def told(app: App, status: int) -> Any:
    response = await request(app)
    assert response.status == status
    return json.loads(response.body)


@virtual
async def test_it_lives() -> None:
    response = await asked(Live())
    assert response.status == 200
    assert json.loads(response.body) == {"live": True}
    assert (b"content-type", b"application/json") in response.headers
    assert (b"cache-control", b"no-store") in response.headers


@virtual
async def test_a_process_without_a_master_is_not_ready() -> None:
    async with Site() as site:
        manager = await site.manager()
        ready = Ready(manager)
        body = await told(ready, 200)
        assert body["ready"] is True
        assert body["demanded"] == {"masters": 1, "replicas": 0}
        assert body["found"] == {"masters": 1, "replicas": 2}
        assert body["writes"]["serves"] is body["reads"]["serves"] is True
        assert body["topology"]["master"] == "db1:5432"
        site.network["db1:5432"].down()
        await eventually(lambda: not manager.topology.masters)
        body = await told(ready, 503)
        assert body["ready"] is False
        assert body["found"] == {"masters": 0, "replicas": 2}
        assert body["writes"]["serves"] is False
        (lost,) = (each for each in body["writes"]["hosts"] if each["address"] == "db1:5432")
        assert lost["hindrance"] == "role"
        assert "unavailable (ConnectionRefusedError" in lost["text"]
        assert body["topology"]["hosts"][0]["reason"].startswith("ConnectionRefusedError")
        site.network.failover()
        await eventually(lambda: manager.topology.masters)
        assert (await told(ready, 200))["topology"]["master"] == "db2:5432"


@pytest.mark.parametrize(
    ("masters", "replicas", "status"),
    [(0, 0, 200), (1, 2, 200), (1, 3, 503), (2, 0, 503), (0, 2, 200)],
)
@virtual
async def test_what_is_demanded(masters: int, replicas: int, status: int) -> None:
    async with Site() as site:
        ready = Ready(await site.manager(), masters, replicas)
        body = await told(ready, status)
        assert body["demanded"] == {"masters": masters, "replicas": replicas}


@virtual
async def test_no_answer_is_waited_for_and_no_query_is_sent() -> None:
    async with Site(refresh_delay=60.0) as site:
        manager = await site.manager()
        queries = [server.queries for server in site.network.servers.values()]
        began = now()
        for _ in range(10):
            await told(Ready(manager), 200)
        assert now() == began
        assert [server.queries for server in site.network.servers.values()] == queries


@virtual
async def test_a_manager_that_nobody_has_used_stays_as_it_is() -> None:
    network = FakeNetwork.cluster()
    kind = type("PoolManager", (BasePoolManager,), {"adapter": FakeAdapter(network)})
    manager: Manager = kind(network.dsn)
    body = await told(Ready(manager), 503)
    assert {host["role"] for host in body["topology"]["hosts"]} == {"unknown"}
    assert all(server.connects == 0 for server in network.servers.values())


@virtual
async def test_a_manager_that_is_closed_is_not_ready() -> None:
    async with Site() as site:
        manager = await site.manager()
        await manager.close()
        body = await told(Ready(manager), 503)
        assert body["found"] == {"masters": 0, "replicas": 0}


@virtual
async def test_a_manager_that_the_scope_has() -> None:
    async with Site() as site:
        manager = await site.manager()
        ready = Ready(lambda scope: scope["state"]["manager"])
        assert (await request(ready, state={"manager": manager})).status == 200
        with pytest.raises(TypeError, match="must return a pool manager, not int"):
            await request(ready, state={"manager": 5})


@virtual
async def test_it_shows_no_secret() -> None:
    async with Site() as site:
        manager = await site.manager()
        site.network["db2:5432"].refuse_connects = "28P01"
        site.network["db2:5432"].break_connections()
        await eventually(lambda: manager.topology["db2:5432"].has_failed)
        response = await request(Ready(manager))
        assert b"secret" not in response.body
        assert b"user" not in response.body


# What they all do


def live(_: Manager) -> Live:
    return Live()


ENDPOINTS: dict[str, Callable[[Manager], Endpoint]] = {
    "live": live,
    "ready": Ready,
    "status page": StatusPage,
}
each_endpoint = pytest.mark.parametrize("kind", ENDPOINTS)


@each_endpoint
@virtual
async def test_a_head_is_answered_as_a_get_without_the_body(kind: str) -> None:
    async with Site() as site:
        app = ENDPOINTS[kind](await site.manager())
        got, head = await asked(app), await asked(app, "HEAD")
        assert got.status == head.status == 200
        assert head.headers == got.headers
        assert dict(got.headers)[b"content-length"] == b"%d" % len(got.body)
        assert got.body
        assert head.body == b""


@each_endpoint
@pytest.mark.parametrize("method", ["POST", "OPTIONS", "DELETE", "BREW"])
@virtual
async def test_another_method_is_refused(kind: str, method: str) -> None:
    async with Site() as site:
        response = await asked(ENDPOINTS[kind](await site.manager()), method)
        assert response.status == 405
        assert dict(response.headers)[b"allow"] == b"GET, HEAD"


@each_endpoint
@virtual
async def test_a_websocket_is_refused(kind: str) -> None:
    async with Site() as site:
        app = ENDPOINTS[kind](await site.manager())
        with pytest.raises(AssertionError, match=r"websocket\.close"):
            async with connected(app):
                pass


@each_endpoint
@virtual
async def test_one_runs_by_itself(kind: str) -> None:
    async with Site() as site:
        app = ENDPOINTS[kind](await site.manager())
        async with lifespan(app):
            assert (await asked(app)).status == 200


@each_endpoint
@virtual
async def test_what_asgi_may_have_one_day_is_an_error(kind: str) -> None:
    async with Site() as site:
        app = ENDPOINTS[kind](await site.manager())
        with pytest.raises(ValueError, match="webtransport"):
            await app({**scope_of("http", "/", ()), "type": "webtransport"}, None, None)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"manager": None}, TypeError, "manager must be a pool manager, or a function"),
        ({"masters": "1"}, TypeError, "masters must be a whole number, not str"),
        ({"masters": True}, TypeError, "masters must be a whole number, not bool"),
        ({"masters": -1}, ValueError, "masters must not be negative"),
        ({"replicas": 1.0}, TypeError, "replicas must be a whole number, not float"),
        ({"replicas": -2}, ValueError, "replicas must not be negative"),
    ],
)
def test_mistakes_of_ready(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Ready(**{"manager": never} | arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"manager": "postgresql://"}, TypeError, "manager must be .* not str"),
        ({"title": None}, TypeError, "title must be a str, not NoneType"),
        ({"title": " "}, ValueError, "title must not be empty"),
        ({"renew_after": "15"}, TypeError, "renew_after must be a number, not str"),
        ({"renew_after": True}, TypeError, "renew_after must be a number, not bool"),
        ({"renew_after": 0}, ValueError, "renew_after must be from 1 to"),
        ({"renew_after": float("inf")}, ValueError, "renew_after must be from 1 to"),
        ({"renew_after": float("nan")}, ValueError, "renew_after must be from 1 to"),
    ],
)
def test_mistakes_of_the_status_page(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        StatusPage(**{"manager": never} | arguments)
