"""What the page is told, without a server, in virtual time; and the document."""

import asyncio
import base64
import contextlib
import gc
import hashlib
import json
import re
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from html.parser import HTMLParser
from typing import Any

import pytest
from tests.asgi.served import Message, messages, until
from tests.asgi.support import App, Manager, Site, request, scope_of
from tests.support.virtual import now, start, virtual
from tests.support.waiting import eventually, turns

from pyscopg2.asgi import StatusPage, journal, status_page, stream
from pyscopg2.asgi.journal import Journal, News
from pyscopg2.base import BasePoolManager
from pyscopg2.core.diagnosis.standing import Explanation
from pyscopg2.core.events import (
    AcquireTimedOut,
    CheckFailed,
    CheckRecovered,
    Event,
    HostChanged,
    ManagerClosed,
    MasterChanged,
)
from pyscopg2.core.statistics import AcquireObserver
from pyscopg2.core.topology import HostState, Role, Topology
from pyscopg2.testing.fake import FakeAdapter


class Reader:
    """A page that is open. What the application sends it takes only when it is read."""

    def __init__(self, app: App, path: str = "/events", root: str = "") -> None:
        self.status: int | None = None
        self.is_leaving = asyncio.Event()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        scope = scope_of("http", root + path, ()) | {"root_path": root}
        self.task = start(app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        await self.is_leaving.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if message.get("body"):
            await self._chunks.put(message["body"])
        if not message.get("more_body"):
            await self._chunks.put(None)

    async def lines(self) -> AsyncIterator[str]:
        while (chunk := await self._chunks.get()) is not None:
            for line in chunk.decode("ascii").splitlines():
                yield line


@contextlib.asynccontextmanager
async def opened(app: App, path: str = "/events", root: str = "") -> AsyncGenerator[Any]:
    """The messages of one page, which leaves at the end of the block."""
    reader = Reader(app, path, root)
    try:
        yield messages(reader.lines())
    finally:
        reader.is_leaving.set()
        await reader.task


@virtual
async def test_a_page_is_told_all_that_is_known_and_then_each_second() -> None:
    async with Site() as site:
        manager = await site.manager()
        page = StatusPage(manager, title="orders")
        async with opened(page) as told:
            snapshot = (await until(told, "snapshot")).data
            assert snapshot["title"] == "orders"
            assert snapshot["topology"]["master"] == "db1:5432"
            assert [host["size"] for host in snapshot["stats"]["hosts"]] == [
                manager.stats()[f"db{number}:5432"].size for number in (1, 2, 3)
            ]
            assert {a: roles[-1][1] for a, roles in snapshot["roles"].items()} == {
                "db1:5432": "master",
                "db2:5432": "replica",
                "db3:5432": "replica",
            }
            began = now()
            for _ in range(5):
                await until(told, "state")
            assert now() - began == pytest.approx(5.0)


@virtual
async def test_a_failover_is_told_at_once_and_those_who_waited() -> None:
    async with Site() as site:
        manager = await site.manager()
        async with opened(StatusPage(manager)) as told:
            await until(told, "snapshot")
            heard: dict[str | None, float] = {}

            def hear(event: Event) -> None:
                if isinstance(event, MasterChanged):
                    heard[event.after] = now()

            manager.subscribe(hear)
            site.network["db1:5432"].down()
            lost = await until(told, "event", kind="MasterChanged")
            assert lost.data["master"] is None
            assert lost.data["text"] == "master: db1:5432 -> none"
            assert now() - heard[None] < 0.01
            state = await until(told, "state")
            assert now() - heard[None] <= 2 * stream.PROMPT
            assert state.data["topology"]["master"] is None
            acquires = [start(manager.acquire_master(timeout=5)) for _ in range(3)]
            await asyncio.sleep(1.2)
            site.network.failover()
            changed = await until(told, "event", role="master")
            assert changed.data["address"] == "db2:5432"
            found = await until(told, "event", kind="MasterChanged")
            assert found.data["master"] == "db2:5432"
            assert now() - heard["db2:5432"] < 0.01
            connections = [await each for each in acquires]
            waits: list[dict[str, Any]] = []
            while sum(each["count"] for each in waits) < 3:
                waits.append((await until(told, "state")).data["waits"])
            assert sum(each["count"] for each in waits) == 3
            assert max(each["longest"] for each in waits) > 1.0
            for connection in connections:
                await manager.release(connection)


@virtual
async def test_waiting_and_failed_acquires_are_told() -> None:
    async with Site() as site:
        manager = await site.manager()
        site.network["db1:5432"].down()
        await eventually(lambda: not manager.topology.masters)
        async with opened(StatusPage(manager)) as told:
            await until(told, "snapshot")
            acquire = start(manager.acquire_master(timeout=1.5))
            state = await until(told, "state")
            assert state.data["stats"]["waiting"] == 1
            event = await until(told, "event", kind="AcquireTimedOut")
            assert event.data["text"].startswith("timed out after 1.5 s")
            state = await until(told, "state")
            assert state.data["stats"]["timed_out"] == 1
            assert state.data["waits"]["failed"] == 1
            assert isinstance(acquire.exception(), TimeoutError)


@virtual
async def test_a_page_that_is_opened_later_is_told_of_the_past() -> None:
    async with Site() as site:
        manager = await site.manager()
        page = StatusPage(manager)
        site.network.failover()
        await eventually(partial(_is_master, manager, "db2:5432"))
        async with opened(page) as told:
            snapshot = (await until(told, "snapshot")).data
            assert [role for _, role in snapshot["roles"]["db1:5432"]] == [
                "master",
                "unavailable",
                "superseded",
            ]
            assert [role for _, role in snapshot["roles"]["db2:5432"]] == ["replica", "master"]
            kinds = [event["kind"] for event in snapshot["events"]]
            assert kinds.count("MasterChanged") == 2


@virtual
async def test_nothing_is_observed_while_nobody_looks() -> None:
    async with Site() as site:
        manager = await site.manager()
        observe = manager.observe
        observers: set[AcquireObserver] = set()

        def observing(observer: AcquireObserver) -> Callable[[], None]:
            observers.add(observer)
            end = observe(observer)

            def ended() -> None:
                observers.discard(observer)
                end()

            return ended

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(manager, "observe", observing)
            page = StatusPage(manager)
            assert len(observers) == 0
            async with opened(page) as told:
                await until(told, "snapshot")
                assert len(observers) == 1
            assert len(observers) == 0


@virtual
async def test_a_manager_that_nobody_has_used_yet() -> None:
    async with Site() as site:
        kind = type("PoolManager", (BasePoolManager,), {"adapter": FakeAdapter(site.network)})
        manager: Manager = kind(site.network.dsn)
        site.managers.append(manager)
        async with opened(StatusPage(manager)) as told:
            snapshot = (await until(told, "snapshot")).data
            assert {roles[-1][1] for roles in snapshot["roles"].values()} == {"unknown"}
            assert snapshot["topology"]["settled"] is False
            await manager.ready()
            await until(told, "event", kind="ManagerStarted")
            await until(told, "event", kind="MasterChanged", master="db1:5432")


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.1, 0.2, 0.3, 1.0])
@virtual
async def test_what_happens_while_a_page_opens_is_told_once(seconds: float) -> None:
    async with Site() as site:
        manager = await site.manager()
        page = StatusPage(manager)
        site.network.failover()
        await asyncio.sleep(seconds)
        async with opened(page) as told:
            events = [*(await until(told, "snapshot")).data["events"]]
            await eventually(partial(_is_master, manager, "db2:5432"))
            site.network["db3:5432"].down()
            while not events or events[-1].get("address") != "db3:5432":
                events.append((await until(told, "event")).data)
            masters = [event["master"] for event in events if event["kind"] == "MasterChanged"]
            assert masters == [None, "db2:5432"]


@virtual
async def test_what_happens_while_the_response_starts_is_told_once() -> None:
    """A middleware, or a client that is slow, may hold it up."""
    async with Site() as site:
        manager = await site.manager()
        page = StatusPage(manager)
        starting = asyncio.Event()

        async def held(scope: Any, receive: Any, send: Any) -> None:
            async def send_late(message: Any) -> None:
                if message["type"] == "http.response.start":
                    await starting.wait()
                await send(message)

            await page(scope, receive, send_late)

        async with opened(held) as told:
            await turns(3)
            site.network.failover()
            await eventually(partial(_is_master, manager, "db2:5432"))
            starting.set()
            snapshot = (await until(told, "snapshot")).data
            assert snapshot["topology"]["master"] == "db1:5432"
            assert not [e for e in snapshot["events"] if e["kind"] == "MasterChanged"]
            await until(told, "event", kind="MasterChanged", master=None)
            await until(told, "event", kind="MasterChanged", master="db2:5432")
            assert (await until(told, "state")).data["topology"]["master"] == "db2:5432"


@virtual
async def test_a_page_that_reads_slowly_misses_events_and_is_told_so() -> None:
    async with Site(replicas=3) as site:
        manager = await site.manager()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream, "BACKLOG", 3)
            async with opened(StatusPage(manager)) as told:
                await until(told, "snapshot")
                # Nobody reads: one message lies in the queue, and one is being sent.
                for address in ("db2:5432", "db3:5432", "db4:5432"):
                    site.network.failover(site.network[address])
                    await eventually(partial(_is_master, manager, address))
                dropped = await until(told, "event", kind="EventsDropped")
                assert re.fullmatch(r"\d+ events dropped", dropped.data["text"])
                state = await until(told, "state")
                assert state.data["topology"]["master"] == "db4:5432"


def _is_master(manager: Manager, address: str) -> bool:
    return manager.topology.masters == (manager.topology[address],)


@virtual
async def test_a_page_that_leaves_while_it_does_not_read_leaves_nothing() -> None:
    async with Site() as site:
        manager = await site.manager()
        page = StatusPage(manager)
        reader = Reader(page)
        await asyncio.sleep(5)
        reader.is_leaving.set()
        await reader.task
        await turns(3)
        assert all("monitor" in t.get_name() for t in asyncio.all_tasks() - {_me()})


@virtual
async def test_a_request_that_is_cancelled_leaves_nothing() -> None:
    async with Site() as site:
        page = StatusPage(await site.manager())
        reader = Reader(page)
        await asyncio.sleep(1.5)
        reader.task.cancel()
        await asyncio.wait([reader.task])
        assert reader.task.cancelled()
        await turns(3)
        assert all("monitor" in t.get_name() for t in asyncio.all_tasks() - {_me()})


def _me() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task


@virtual
async def test_a_server_that_says_that_the_client_has_left() -> None:
    async with Site() as site:
        page = StatusPage(await site.manager())

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                raise OSError

        async def receive() -> Any:
            await asyncio.Event().wait()

        await page(scope_of("http", "/events", ()), receive, send)


@virtual
async def test_an_error_of_the_servers_is_raised() -> None:
    async with Site() as site:
        page = StatusPage(await site.manager())

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                raise KeyError

        async def receive() -> Any:
            await asyncio.Event().wait()

        with pytest.raises(KeyError):
            await page(scope_of("http", "/events", ()), receive, send)


# Its end


@virtual
async def test_a_page_asks_anew_after_a_while() -> None:
    async with Site() as site:
        page = StatusPage(await site.manager(), renew_after=4)
        began = now()
        reader = Reader(page)
        seen = [message.event async for message in messages(reader.lines())]
        assert seen == ["snapshot", *["state"] * (len(seen) - 2), "renew"]
        assert now() - began == pytest.approx(4)
        await reader.task


@virtual
async def test_it_ends_with_its_manager() -> None:
    async with Site() as site:
        manager = await site.manager()
        reader = Reader(StatusPage(manager))
        told = messages(reader.lines())
        await until(told, "snapshot")
        await manager.close()
        rest = [message async for message in told]
        assert rest[-2].data["kind"] == ManagerClosed.__name__
        assert rest[-1].event == "state"
        await reader.task


@virtual
async def test_it_ends_when_it_is_closed_and_opens_no_more() -> None:
    async with Site() as site:
        page = StatusPage(await site.manager())
        readers = [Reader(page) for _ in range(3)]
        for reader in readers:
            await until(messages(reader.lines()), "snapshot")
        page.close()
        page.close()
        for reader in readers:
            seen = [message.event async for message in messages(reader.lines())]
            assert "renew" not in seen
            await reader.task
        assert (await request(page, path="/events")).status == 503
        assert (await request(page)).status == 200


@virtual
async def test_so_many_pages_and_no_more() -> None:
    async with Site() as site:
        page = StatusPage(await site.manager())
        readers = [Reader(page) for _ in range(status_page.MOST)]
        for reader in readers:
            await until(messages(reader.lines()), "snapshot")
        assert (await request(page, path="/events")).status == 503
        readers[0].is_leaving.set()
        await readers[0].task
        async with opened(page) as told:
            await until(told, "snapshot")
        page.close()
        for reader in readers[1:]:
            assert [message async for message in messages(reader.lines())]
            await reader.task


@virtual
async def test_a_head_of_the_stream_opens_none() -> None:
    async with Site() as site:
        page = StatusPage(await site.manager())

        async def head(scope: Any, receive: Any, send: Any) -> None:
            await page({**scope, "method": "HEAD"}, receive, send)

        response = await request(head, path="/events")
        assert response.status == 200
        assert dict(response.headers)[b"content-type"] == b"text/event-stream"
        assert response.body == b""


@virtual
async def test_managers_that_the_scope_has_are_told_apart() -> None:
    async with Site() as site:
        managers = [await site.manager(), await site.manager()]
        page = StatusPage(lambda scope: managers[int(scope["query_string"] or 0)])

        async def second(scope: Any, receive: Any, send: Any) -> None:
            await page({**scope, "query_string": b"1"}, receive, send)

        async with opened(page) as told:
            await until(told, "snapshot")
            async with opened(second) as other:
                await until(other, "snapshot")
                site.network["db2:5432"].down()
                for each, manager in ((told, managers[0]), (other, managers[1])):
                    await until(each, "event", address="db2:5432", role="unavailable")
                    assert manager.topology["db2:5432"].role is Role.UNAVAILABLE


@virtual
async def test_a_manager_that_is_gone_is_not_kept() -> None:
    """By a page that is given a function."""
    async with Site() as site:
        await site.manager()
        page = StatusPage(lambda _: site.managers[0])
        async with opened(page) as told:
            await until(told, "snapshot")
        gone = weakref.ref(site.managers[0])
        await site.managers.pop().terminate()
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize(
    ("path", "root", "status"),
    [
        ("/", "", 200),
        ("", "/status", 200),
        ("/", "/status", 200),
        ("/", "/a/status", 200),
        ("/else", "/status", 404),
        ("/events/more", "", 404),
    ],
)
@virtual
async def test_where_it_is(path: str, root: str, status: int) -> None:
    async with Site() as site:
        page = StatusPage(await site.manager())

        async def mounted(scope: Any, receive: Any, send: Any) -> None:
            await page({**scope, "root_path": root}, receive, send)

        assert (await request(mounted, path=root + path)).status == status


@pytest.mark.parametrize(("path", "root"), [("/events", ""), ("/events", "/a"), ("/events/", "")])
@virtual
async def test_where_its_stream_is(path: str, root: str) -> None:
    async with Site() as site:
        page = StatusPage(await site.manager())
        async with opened(page, path, root) as told:
            assert isinstance(await until(told, "snapshot"), Message)


# What was


def topology() -> Topology:
    return Topology.of(("db1:5432",))


def changed(role: Role, at: float, before: Role = Role.UNKNOWN) -> HostChanged:
    return HostChanged(
        at=at, before=HostState("db1:5432", before), after=HostState("db1:5432", role)
    )


def failed(reason: str, address: str = "db1:5432") -> CheckFailed:
    return CheckFailed(address=address, reason=reason, hopeless=False, error=None)


RECOVERED = CheckRecovered(address="db1:5432", failures=3, failed_for=1.0)


def roles_in(kept: Journal, now: float) -> Any:
    told: Any = kept.as_dict(now)
    return told["roles"]["db1:5432"]


def test_what_a_host_was_is_known_for_ten_minutes() -> None:
    kept = Journal(topology(), now=1000)
    kept.hear(changed(Role.MASTER, 1010))
    kept.hear(changed(Role.UNAVAILABLE, 1300, Role.MASTER))
    assert roles_in(kept, 1300) == [(1000, "unknown"), (1010, "master"), (1300, "unavailable")]
    assert roles_in(kept, 1609) == [(1000, "unknown"), (1010, "master"), (1300, "unavailable")]
    # What it was when the ten minutes began is known, too.
    assert roles_in(kept, 1611) == [(1010, "master"), (1300, "unavailable")]
    assert roles_in(kept, 9999) == [(1300, "unavailable")]


def test_what_is_kept_has_bounds() -> None:
    kept = Journal(topology(), now=0)
    for number in range(journal.MOST_CHANGES):
        at = float(number) / 100
        kept.hear(changed(Role.MASTER, at, Role.UNAVAILABLE))
        kept.hear(changed(Role.UNAVAILABLE, at, Role.MASTER))
    told: Any = kept.as_dict(10)
    assert len(told["roles"]["db1:5432"]) == journal.MOST_CHANGES
    assert len(told["events"]) == journal.MOST_EVENTS


def test_a_check_that_fails_again_for_the_same_reason_is_no_news() -> None:
    news = News()
    events = [
        *(failed("refused"), failed("refused"), failed("refused", "db2:5432"), failed("starting")),
        *(failed("refused"), RECOVERED, failed("refused"), failed("refused")),
    ]
    assert [news.has(event) for event in events] == [1, 0, 1, 1, 1, 1, 1, 0]


def test_news_of_two_readers_are_their_own() -> None:
    news = News()
    news.has(failed("refused"))
    other = news.copy()
    assert not other.has(failed("refused"))
    other.has(RECOVERED)
    assert other.has(failed("refused"))
    assert not news.has(failed("refused"))


def test_of_acquires_that_time_out_one_in_ten_seconds_is_news() -> None:
    explanation = Explanation("a master", ())
    news = News()
    events = [
        AcquireTimedOut(at=at, timeout=1.0, explanation=explanation)
        for at in (1000.0, 1000.0, 1009.9, 1010.0, 1011.0, 1020.0)
    ]
    assert [news.has(event) for event in events[:5]] == [1, 0, 0, 1, 0]
    assert not news.copy().has(events[4])
    assert news.has(events[5])
    # The system's clock was set back.
    assert news.has(events[0])


def test_a_host_whose_pool_alone_has_changed_is_no_news() -> None:
    there = HostState("db1:5432", Role.REPLICA, has_pool=True)
    gone = HostState("db1:5432", Role.REPLICA)
    assert not News().has(HostChanged(before=gone, after=there))
    assert News().has(HostChanged(before=gone, after=HostState("db1:5432", Role.MASTER)))


def test_what_servers_say_breaks_no_message() -> None:
    said = "\n\ndata: forged\r\n\u2028</script><img src=x onerror=alert(1)>\ud800"
    whole = stream.message("event", journal.event_as_dict(failed(said)))
    assert whole.count(b"\n") == 3
    assert whole.startswith(b"event: event\ndata: {")
    assert whole.endswith(b"}\n\n")
    assert whole.isascii()
    assert json.loads(whole.split(b"data: ", 1)[1])["text"].endswith(said)


# The document


class Elements(HTMLParser):
    """What a document loads, and what stands in its styles and scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.texts: dict[str, str] = {}
        self.attributes: set[str] = set()
        self._tag = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self._tag in ("style", "script"):
            self.texts[self._tag] = self.texts.get(self._tag, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""


async def document(manager: Manager) -> tuple[Elements, dict[bytes, bytes]]:
    response = await request(StatusPage(manager))
    elements = Elements()
    elements.feed(response.body.decode())
    elements.close()
    return elements, dict(response.headers)


@virtual
async def test_the_documents_policy_allows_its_own_texts_and_nothing_else() -> None:
    async with Site() as site:
        elements, headers = await document(await site.manager())
        parts = headers[b"content-security-policy"].decode().split("; ")
        policy = {name: value for name, _, value in (part.partition(" ") for part in parts)}
        for tag in ("style", "script"):
            digest = hashlib.sha256(elements.texts[tag].encode()).digest()
            assert policy[f"{tag}-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"
        assert policy["default-src"] == "'none'"
        assert policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert headers[b"content-type"] == b"text/html; charset=utf-8"
        # A policy of this kind forbids them.
        assert not {name for name in elements.attributes if name.startswith("on")}
        assert "style" not in elements.attributes


@virtual
async def test_the_document_asks_nobody_else() -> None:
    async with Site() as site:
        elements, _ = await document(await site.manager())
        assert elements.addresses == ["data:,"]
        style, script = elements.texts["style"], elements.texts["script"]
        assert "@import" not in style
        assert set(re.findall(r"url\((.*?)\)", style)) <= {'"#stripes"', '"#dots"'}
        # The name of SVG's elements, which nobody fetches.
        assert re.findall(r"\w+://[^\"\s]*", style + script) == ["http://www.w3.org/2000/svg"]
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in script


@virtual
async def test_each_start_of_a_process_is_told_apart() -> None:
    async with Site() as site:
        manager = await site.manager()
        instances: set[str] = set()
        for _ in range(2):
            async with opened(StatusPage(manager)) as told:
                instances.add((await until(told, "snapshot")).data["instance"])
        assert len(instances) == 2
