"""The middleware itself, without a framework, in virtual time."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from tests.asgi.support import (
    COOKIE,
    SECRET,
    App,
    Manager,
    Site,
    around,
    connected,
    lifespan,
    read,
    request,
    signed,
    token_in,
    with_cookie,
)
from tests.support.virtual import start, virtual

from pyscopg2.asgi import CausalMiddleware, Counts
from pyscopg2.asgi.reach import Reach
from pyscopg2.asgi.signer import Signer
from pyscopg2.asgi.token import Token
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.core.wal import WalPosition
from pyscopg2.testing.fake import FakeConnection, FakeNetwork


async def answer(send: Any, text: str = "", headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [*headers]})
    await send({"type": "http.response.body", "body": text.encode()})


def writing(site: Site, manager: Manager) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await site.write(manager)
        await answer(send, "written", [(b"set-cookie", b"theirs=1")])

    return app


def reading(manager: Manager, timeout: float | None = None) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, await read(manager, timeout))

    return app


async def idle(scope: Any, receive: Any, send: Any) -> None:
    await answer(send)


def issued(reach: Reach, ago: float = 0) -> str:
    return signed(Token(int(time.time() - ago), reach))


def reach_in(signed: bytes) -> Reach:
    token = token_in(signed)
    assert isinstance(token, Token)
    assert 0 <= time.time() - token.issued < 50
    return token.reach


# From one process to another


@virtual
async def test_what_one_process_writes_another_one_reads() -> None:
    async with Site() as site:
        here, there = await site.manager(), await site.manager()
        write, reads = around(writing(site, here), here), around(reading(there), there)
        answers = {(await request(reads)).body for _ in range(20)}
        assert answers == {b"db2", b"db3"}, "who has written nothing is served by any replica"
        for _ in range(5):
            written = await request(write)
            assert written.token is not None
            assert written.token.reach == Reach(site.position)
            for _ in range(10):
                response = await request(reads, with_cookie(written.cookie))
                assert response.body == b"db3"
                assert response.cookie is None, "it says nothing new"
        assert {(await request(reads)).body for _ in range(20)} == {b"db2", b"db3"}
        assert write.counts == Counts(told=5)
        assert reads.counts == Counts(accepted=50)


@virtual
async def test_the_cookie_as_browsers_want_it() -> None:
    async with Site() as site:
        manager = await site.manager()
        app = writing(site, manager)
        response = await request(around(app, manager))
        theirs, ours = (value.decode() for name, value in response.headers if name == b"set-cookie")
        assert theirs == "theirs=1"
        value, *attributes = ours.split("; ")
        assert value == f"{COOKIE}={response.cookie}"
        assert attributes == ["Max-Age=300", "Path=/", "HttpOnly", "SameSite=Lax", "Secure"]
        settings: dict[str, Any] = {"secure": False, "path": "/app", "age_limit": 59.5}
        response = await request(around(app, manager, **settings))
        _, ours = (value.decode() for name, value in response.headers if name == b"set-cookie")
        assert ours.split("; ")[1:] == ["Max-Age=60", "Path=/app", "HttpOnly", "SameSite=Lax"]


@virtual
async def test_a_header_instead_or_beside() -> None:
    async with Site() as site:
        manager = await site.manager()
        alone = {"cookie": None, "header": "X-Causal"}
        response = await request(around(writing(site, manager), manager, **alone))
        told = dict(response.headers)
        assert told.keys() == {b"set-cookie", b"x-causal"}
        assert response.headers.count((b"set-cookie", b"theirs=1")) == 1
        token = told[b"x-causal"]
        assert reach_in(token) == Reach(site.position)
        reads = around(reading(manager), manager, **alone)
        for _ in range(10):
            assert (await request(reads, [(b"x-causal", token)])).body == b"db3"
        assert (await request(reads, with_cookie(token.decode()))).headers == []
        assert reads.counts == Counts(accepted=10), "a cookie is no header"
        both = around(writing(site, manager), manager, header="X-Causal")
        response = await request(both)
        assert dict(response.headers)[b"x-causal"].decode() == response.cookie


@virtual
async def test_of_several_tokens_the_later_counts() -> None:
    async with Site() as site:
        manager = await site.manager()
        earlier = issued(Reach(site.position))
        site.commit()
        site.replay("db3")
        later = issued(Reach(site.position))
        await manager.wait_next_pool_check()
        reads = around(reading(manager), manager, header="x-causal")
        jar = f"a=1; {COOKIE}={earlier}; {COOKIE}x={earlier};{COOKIE}={later}".encode()
        for headers in (
            [(b"cookie", jar)],
            with_cookie(later, earlier),
            [(b"x-causal", earlier.encode()), *with_cookie("forged", later)],
            [(b"x-causal", later.encode()), *with_cookie(earlier)],
        ):
            for _ in range(10):
                assert (await request(reads, headers)).body == b"db3"
        many = with_cookie(*["p1.2"] * 50)
        before = reads.counts
        await request(reads, many)
        assert reads.counts == replace(before, malformed=before.malformed + 4), "no more work"


# What is ignored


WAITS = Reach(None, waits=True)
IGNORED: dict[str, Callable[[], str]] = {
    "malformed": lambda: "nonsense",
    "oversized": lambda: "x" * 4000,
    "forged": lambda: Signer([b"x" * 32], 1).sign(Token(int(time.time()), WAITS)),
    "old": lambda: issued(WAITS, ago=302),
    "early": lambda: issued(WAITS, ago=-60),
    "foreign": lambda: issued(Reach(WalPosition(43, 9, 2**40), waits=True)),
}


@pytest.mark.parametrize("reason", IGNORED)
@virtual
async def test_what_is_ignored_is_counted(reason: str) -> None:
    cookie = IGNORED[reason]()
    async with Site() as site:
        manager = await site.manager()
        site.commit()
        reads = around(reading(manager, timeout=0.5), manager)
        for count in (1, 2):
            response = await request(reads, with_cookie(cookie))
            assert response.body in (b"db2", b"db3"), "as if it were not there"
            assert response.cookie is None
            assert reads.counts == replace(Counts(), **{reason: count})


@virtual
async def test_without_fencing_what_is_foreign_is_known_by_the_master() -> None:
    async with Site() as site:
        manager = await site.manager(fencing=False)
        assert manager.topology.system is None
        reads = around(reading(manager, timeout=0.5), manager)
        foreign = issued(Reach(WalPosition(43, 9, 2**40)))
        assert (await request(reads, with_cookie(foreign))).status == 200
        assert reads.counts == Counts(foreign=1)


@virtual
async def test_before_the_system_is_known_nothing_is_foreign_to_it() -> None:
    async with Site() as site:
        manager = await site.manager(FakeNetwork.cluster(0))
        await manager.terminate()
        unknown = type(manager)(site.network.dsn, acquire_timeout=5.0)
        site.managers.append(unknown)
        foreign = Reach(WalPosition(43, 9, 2**40))
        reads = around(idle, unknown)
        assert (await request(reads, with_cookie(issued(foreign)))).cookie is None
        assert reads.counts == Counts(accepted=1)


@virtual
async def test_secrets_are_replaced_one_after_the_other() -> None:
    async with Site() as site:
        manager = await site.manager()
        old, new = "old secret" * 4, b"new secret" * 4
        cookies: list[str | None] = []
        given: list[Any] = [old, [old, new], [new, old], new]
        for secret in given:
            app = CausalMiddleware(writing(site, manager), manager, secret)
            cookies.append((await request(app)).cookie)
        reads = CausalMiddleware(reading(manager), manager, [new, old])
        for cookie in cookies:
            await request(reads, with_cookie(cookie))
        assert reads.counts == Counts(accepted=4)
        reads = CausalMiddleware(reading(manager), manager, new)
        for cookie in cookies:
            await request(reads, with_cookie(cookie))
        assert reads.counts == Counts(accepted=2, forged=2)


# What a response knows


@virtual
async def test_who_writes_nothing_carries_nothing() -> None:
    async with Site() as site:
        manager = await site.manager()
        for app in (around(idle, manager), around(reading(manager), manager)):
            response = await request(app)
            assert response.headers == []
            assert app.counts == Counts()


@virtual
async def test_a_write_moves_the_token_on_and_never_back() -> None:
    async with Site() as site:
        manager = await site.manager()
        app = around(writing(site, manager), manager)
        ahead = WalPosition(site.position.system_identifier, 1, 2**40)
        response = await request(app, with_cookie(issued(Reach(ahead), ago=100)))
        assert response.cookie is None, "what it wrote is covered"
        first = await request(app)
        second = await request(app, with_cookie(first.cookie))
        assert first.token is not None
        assert second.token is not None
        assert second.token.reach == Reach(site.position)


@virtual
async def test_a_lost_position_makes_the_next_request_wait() -> None:
    """The connection breaks after the commit: nobody could ask how far the log is. What another
    process has to wait for is all that was committed before the next request came."""
    async with Site() as site:
        here, there = await site.manager(refresh_delay=30), await site.manager()

        async def write_and_lose(scope: Any, receive: Any, send: Any) -> None:
            with contextlib.suppress(Exception):
                async with here.acquire_master() as connection:
                    site.commit()
                    here.adapter.terminate_connection(connection)
            await answer(send)

        response = await request(around(write_and_lose, here))
        assert response.token is not None
        assert response.token.reach == Reach(None, waits=True)
        # The age is that of the last write, though the token says the same.
        before = issued(response.token.reach, ago=100)
        again = await request(around(write_and_lose, here), with_cookie(before))
        assert again.token is not None
        assert again.token.reach == response.token.reach
        assert time.time() - again.token.issued < 50
        reads = around(reading(there), there)
        serving = start(request(reads, with_cookie(response.cookie)))
        await asyncio.sleep(5)
        assert not serving.done(), "no replica has replayed it"
        site.replay("db3")
        read_there = await serving
        assert read_there.body == b"db3"
        # The read has asked the master: now the position is known, and need not be asked again.
        assert read_there.token is not None
        assert read_there.token.reach == Reach(site.position)
        for _ in range(10):
            later = await request(reads, with_cookie(read_there.cookie))
            assert (later.body, later.cookie) == (b"db3", None)


@virtual
async def test_who_has_to_wait_has_to_until_somebody_knows() -> None:
    async with Site() as site:
        manager = await site.manager(refresh_delay=30)
        cookie = issued(Reach(site.position, waits=True))
        app = around(idle, manager)
        assert (await request(app, with_cookie(cookie))).cookie is None

        async def check(scope: Any, receive: Any, send: Any) -> None:
            await manager.wait_next_pool_check()
            await answer(send)

        response = await request(around(check, manager), with_cookie(cookie))
        assert response.token is not None
        assert response.token.reach == Reach(site.position)


@virtual
async def test_a_block_that_is_open_when_the_response_starts() -> None:
    """As a dependency of FastAPI's: its block ends after the response was sent."""
    async with Site() as site:
        manager = await site.manager(refresh_delay=30)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async with manager.acquire_master():
                site.commit()
                await answer(send)

        middleware = around(app, manager)
        first = await request(middleware)
        assert first.token is not None
        assert first.token.reach == Reach(None, waits=True)
        # The age is that of the last write, though the token says the same.
        again = await request(middleware, with_cookie(issued(first.token.reach, ago=100)))
        assert again.token is not None
        assert again.token.reach == first.token.reach
        assert time.time() - again.token.issued < 50
        assert middleware.counts == Counts(accepted=1, told=2)
        reads = around(reading(manager), manager)
        serving = start(request(reads, with_cookie(first.cookie)))
        await asyncio.sleep(1)
        assert not serving.done()
        site.replay("db3")
        assert (await serving).body == b"db3"


@virtual
async def test_a_write_of_which_no_response_could_tell_is_counted() -> None:
    async with Site() as site:
        manager = await site.manager()

        async def late(scope: Any, receive: Any, send: Any) -> None:
            await answer(send)
            await site.write(manager)
            assert await read(manager) == "db3", "what runs on sees what it wrote"

        async def fails(scope: Any, receive: Any, send: Any) -> None:
            await site.write(manager)
            raise KeyError

        async def fails_within(scope: Any, receive: Any, send: Any) -> None:
            async with manager.acquire_master():
                raise KeyError

        async def hands_on(scope: Any, receive: Any, send: Any) -> None:
            await answer(send)
            held.append(await manager.acquire_master())

        held: list[FakeConnection] = []
        for app in (late, hands_on):
            middleware = around(app, manager)
            assert (await request(middleware)).cookie is None
            assert middleware.counts == Counts(untold=1)
        await manager.release(held[0])
        for app in (fails, fails_within):
            middleware = around(app, manager)
            with pytest.raises(KeyError):
                await request(middleware)
            assert middleware.counts == Counts(untold=1)


@virtual
async def test_after_a_failover_the_token_of_before_is_good_for_those_who_followed() -> None:
    async with Site() as site:
        here, there = await site.manager(), await site.manager()
        response = await request(around(writing(site, here), here))
        site.network.failover()
        reads = around(reading(there), there)
        await there.wait_next_pool_check()
        assert (await request(reads, with_cookie(response.cookie))).status == 200
        again = await request(around(writing(site, here), here), with_cookie(response.cookie))
        assert again.token is not None
        assert again.token.reach.position is not None
        assert again.token.reach.position.timeline == 2


# Other scopes, other tasks


@virtual
async def test_a_websocket_is_one_session() -> None:
    async with Site() as site:
        here, there = await site.manager(), await site.manager()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                if message["text"] == "write":
                    await site.write(there)
                text = await read(there)
                await send({"type": "websocket.send", "text": text})

        written = await request(around(writing(site, here), here))
        middleware = around(app, there)
        async with connected(middleware, with_cookie(written.cookie)) as socket:
            assert {await socket.ask("read") for _ in range(10)} == {"db3"}
        assert middleware.counts == Counts(accepted=1)
        site.replay("db2", "db3")
        async with connected(middleware) as socket, connected(middleware) as other:
            assert {await socket.ask("read") for _ in range(20)} == {"db2", "db3"}
            assert await socket.ask("write") == "db3"
            assert {await socket.ask("read") for _ in range(20)} == {"db3"}
            assert {await other.ask("read") for _ in range(20)} == {"db2", "db3"}
        assert middleware.counts == Counts(accepted=1, untold=1)
        waiting = issued(Reach(None, waits=True))
        site.replay("db2", "db3")
        site.commit()
        site.replay("db3")
        async with connected(middleware, with_cookie(waiting)) as socket:
            assert {await socket.ask("read") for _ in range(10)} == {"db3"}


@virtual
async def test_lifespans_and_the_unknown_pass_through_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    def manager_of(_: Any) -> Manager:
        raise AssertionError("there is none before the lifespan has begun")

    middleware = CausalMiddleware(app, manager_of, SECRET)
    async with lifespan(middleware):
        pass
    scope, receive, send = {"type": "a later one"}, object(), object()
    await middleware(scope, receive, send)
    assert seen[1][0] is scope
    assert seen[1][1:] == (receive, send)


@virtual
async def test_the_manager_may_be_made_in_the_lifespan() -> None:
    async with Site() as site:
        made = await site.manager()
        middleware = CausalMiddleware(
            writing(site, made), lambda scope: scope["state"]["manager"], SECRET
        )
        assert (await request(middleware, state={"manager": made})).token is not None
        with pytest.raises(TypeError, match="must return a pool manager, not NoneType"):
            await request(middleware, state={"manager": None})
        with pytest.raises(KeyError):
            await request(middleware)


@virtual
async def test_requests_at_the_same_time_have_sessions_of_their_own() -> None:
    async with Site() as site:
        manager = await site.manager()
        writes, reads = around(writing(site, manager), manager), around(reading(manager), manager)
        written = await request(writes)
        async with asyncio.TaskGroup() as group:
            with_it = [
                group.create_task(request(reads, with_cookie(written.cookie))) for _ in range(20)
            ]
            without = [group.create_task(request(reads)) for _ in range(40)]
        assert {task.result().body for task in with_it} == {b"db3"}
        assert {task.result().body for task in without} == {b"db2", b"db3"}


@virtual
async def test_tasks_that_a_request_starts_are_in_its_session() -> None:
    async with Site() as site:
        manager = await site.manager()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.gather(start(site.write(manager)), start(asyncio.sleep(0.1)))
            await answer(send, await start(read(manager)))

        response = await request(around(app, manager))
        assert response.body == b"db3"
        assert response.token is not None
        assert response.token.reach == Reach(site.position)


@virtual
async def test_two_managers_have_a_middleware_each() -> None:
    async with Site() as site, Site() as other:
        mine, theirs = await site.manager(), await other.manager()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await site.write(mine)
            await other.write(theirs)
            await other.write(theirs)
            await answer(send)

        inner = around(app, theirs, cookie=None, header="x-theirs")
        response = await request(around(inner, mine, cookie=None, header="x-mine"))
        told = {name: reach_in(value) for name, value in response.headers}
        assert told == {b"x-mine": Reach(site.position), b"x-theirs": Reach(other.position)}


@virtual
async def test_a_read_that_no_replica_can_serve_waits_within_its_timeout() -> None:
    async with Site() as site:
        manager = await site.manager()
        ahead = WalPosition(site.position.system_identifier, 1, 2**40)
        reads = around(reading(manager, timeout=1), manager)
        with pytest.raises(AcquireTimeoutError, match="not behind a write of its own"):
            await request(reads, with_cookie(issued(Reach(ahead))))
