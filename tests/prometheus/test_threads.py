"""Scrapes come from other threads; a manager is asked in its own."""

import asyncio
import threading
import urllib.request
from typing import Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from tests.core.conftest import Bench, Manager
from tests.prometheus.scraping import Scrape, samples_in
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.core.statistics import Stats
from pyscopg2.prometheus import PoolCollector

POOL = "db1:5432,db2:5432/test"


class Moment(NamedTuple):
    """What a scrape tells of db1."""

    acquires: float
    got: float
    given_back: float
    used: float


def moment(told: Scrape) -> Moment:
    def value(name: str, **labels: str) -> float:
        found = told(f"pyscopg2_{name}", host="db1:5432", **labels)
        assert found is not None
        return found

    return Moment(
        value("acquires_total"),
        value("wait_seconds_count"),
        value("use_seconds_count"),
        value("connections", state="used"),
    )


def note_threads(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The threads in which it is asked from now on."""
    threads: set[int] = set()
    asked = manager.stats

    def stats() -> Stats:
        threads.add(threading.get_ident())
        return asked()

    monkeypatch.setattr(manager, "stats", stats)
    return threads


async def test_an_http_server_in_a_thread_while_the_manager_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Bench(size=3) as bench:
        manager = bench.manager
        registry = CollectorRegistry()
        registry.register(PoolCollector(manager, timeout=PATIENCE))
        threads = note_threads(manager, monkeypatch)
        server, serving = start_http_server(0, addr="127.0.0.1", registry=registry)
        url = f"http://127.0.0.1:{server.server_port}/metrics"

        def scrape() -> Scrape:
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                return Scrape(samples_in(response.read().decode()))

        async def use() -> None:
            while True:
                async with manager.acquire():
                    await asyncio.sleep(0)

        using = [asyncio.ensure_future(use()) for _ in range(6)]
        try:
            acquires = 0.0
            for _ in range(10):
                scrapes = [asyncio.to_thread(scrape) for _ in range(3)]
                moments = [moment(told) for told in await asyncio.gather(*scrapes)]
                for found in moments:
                    # Numbers of two moments would not fit: the manager works without a pause.
                    assert found.got == found.acquires
                    assert found.got - found.given_back <= found.used <= 3
                latest = max(found.got for found in moments)
                assert latest > acquires
                acquires = latest
            assert threads == {threading.get_ident()}
        finally:
            for each in using:
                each.cancel()
            await asyncio.wait(using)
            await asyncio.to_thread(server.shutdown)
            server.server_close()
            serving.join(PATIENCE)


async def test_what_a_blocked_event_loop_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bench() as bench:
        collector = PoolCollector(bench.manager, timeout=0.01)
        threads = note_threads(bench.manager, monkeypatch)
        told: list[Scrape] = []
        scraping = threading.Thread(target=lambda: told.append(Scrape.of(collector)))
        scraping.start()
        # This blocks the loop.
        scraping.join(PATIENCE)
        assert told[0]("pyscopg2_up", pool=POOL) == 0
        assert len(told[0].samples) == 1
        assert threads == set()
        # The loop finds the question, which nobody waits for any more.
        await asyncio.sleep(0)
        assert threads == set()

        def is_up() -> Any:
            return asyncio.to_thread(lambda: Scrape.of(collector)("pyscopg2_up", pool=POOL))

        await eventually(is_up)
        assert threads == {threading.get_ident()}


async def test_one_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bench() as bench:
        collector = PoolCollector(bench.manager)

        def stats() -> Stats:
            raise ZeroDivisionError

        monkeypatch.setattr(bench.manager, "stats", stats)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(Scrape.of, collector)


def test_managers_of_several_event_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked in its own; the main thread has none."""
    collector = PoolCollector(timeout=PATIENCE)
    ready = threading.Barrier(3)
    over = threading.Event()
    threads: dict[str, set[int]] = {}

    async def live(name: str) -> None:
        async with Bench() as bench:
            collector.add(bench.manager, name)
            threads[name] = note_threads(bench.manager, monkeypatch)
            await asyncio.to_thread(ready.wait, PATIENCE)
            await asyncio.to_thread(over.wait, PATIENCE)

    running = [threading.Thread(target=asyncio.run, args=(live(name),)) for name in ("a", "b")]
    for each in running:
        each.start()
    try:
        ready.wait(PATIENCE)
        told = Scrape.of(collector)
        assert told("pyscopg2_up", pool="a") == told("pyscopg2_up", pool="b") == 1
        assert threads == {
            "a": {running[0].ident},
            "b": {running[1].ident},
        }
    finally:
        over.set()
        for each in running:
            each.join(PATIENCE)
    assert Scrape.of(collector).samples == {}


def test_after_its_event_loop_has_ended_the_last_numbers_are_told() -> None:
    bench = Bench()
    collector = PoolCollector(bench.manager, timeout=PATIENCE)

    async def use() -> None:
        async with bench.manager.acquire():
            pass

    asyncio.run(use())
    told = Scrape.of(collector)
    assert told("pyscopg2_up", pool=POOL) == 1
    assert told("pyscopg2_acquires_total", host="db1:5432") == 1
    # The loop has ended without it.
    asyncio.run(bench.manager.terminate())
