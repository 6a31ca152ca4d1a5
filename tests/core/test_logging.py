"""The log: one line for each change of a host's state, and nothing else."""

import asyncio
import logging

import pytest
from tests.core.conftest import Bench, virtual

from pyscopg2.testing.fake_server import WRONG_PASSWORD

REFUSED = "ConnectionRefusedError: db2: connection refused"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What was logged since the last call."""
    seen = [(record.levelname, record.getMessage()) for record in log.records]
    assert all(record.name == "pyscopg2" for record in log.records)
    assert all(record.exc_info is None for record in log.records)
    log.clear()
    return seen


@virtual
async def test_the_start(log: pytest.LogCaptureFixture) -> None:
    async with Bench():
        assert sorted(lines(log)) == [
            ("INFO", "db1:5432 master (was unknown)"),
            ("INFO", "db2:5432 replica (was unknown)"),
        ]


@virtual
async def test_nothing_while_nothing_changes(log: pytest.LogCaptureFixture) -> None:
    async with Bench(replicas=2) as bench:
        bench["db3"].down()
        await bench.until_roles("master replica unavailable")
        lines(log)
        for _ in range(60):
            async with bench.manager.acquire(), bench.manager.acquire_replica():
                await asyncio.sleep(1)
        assert lines(log) == []


@virtual
async def test_one_line_per_change(log: pytest.LogCaptureFixture) -> None:
    async with Bench() as bench:
        lines(log)
        bench["db2"].down()
        await bench.until_roles("master unavailable")
        await asyncio.sleep(5)
        assert lines(log) == [
            ("WARNING", f"db2:5432 unavailable ({REFUSED}) (was replica)"),
        ]
        bench["db2"].up()
        await bench.until_roles("master replica")
        assert lines(log) == [("INFO", "db2:5432 replica (was unavailable)")]
        bench.network.failover(old_stays=True)
        await bench.until_roles("superseded master")
        await asyncio.sleep(5)
        forget = "if that is gone for good: forget('db2:5432')"
        assert lines(log) == [
            (
                "WARNING",
                f"db1:5432 superseded by db2:5432 ({forget}) (was master)",
            ),
            ("WARNING", "db2:5432 master (was replica)"),
        ]


@virtual
async def test_connections_that_are_terminated(log: pytest.LogCaptureFixture) -> None:
    async with Bench(abandon_timeout=3) as bench:
        held = [await bench.manager.acquire() for _ in range(3)]
        lines(log)
        bench["db1"].freeze()
        await asyncio.sleep(6)
        assert lines(log)[1:] == [
            (
                "WARNING",
                "connections terminated: 3, still out on db1:5432 after its pool was retired",
            )
        ]
        for connection in held:
            await bench.manager.release(connection)
        assert lines(log) == []


@virtual
async def test_no_password_at_any_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bench = Bench(replicas=2, ready=False)
    bench["db1"].refuse_connects = WRONG_PASSWORD
    bench["db2"].freeze()
    async with bench, bench.manager:
        await asyncio.sleep(5)
        bench["db1"].refuse_connects = None
        bench["db2"].thaw()
        await bench.until_roles("master replica replica", 12)
        bench["db3"].break_connections()
        await asyncio.sleep(5)
    assert "db1:5432" in caplog.text
    assert "secret" not in caplog.text
