"""What errors say, and which are told at once."""

import asyncio

import pytest
from tests.core.conftest import Bench, now, start, virtual

from pyscopg2.core.errors import AcquireTimeoutError, NotReadyError, PyscopgError
from pyscopg2.testing.fake import FakePool
from pyscopg2.testing.fake_server import FULL, STARTING, UNKNOWN_DATABASE, WRONG_PASSWORD, FakeError


@virtual
async def test_a_timeout_shows_each_hosts_state_and_no_password() -> None:
    bench = Bench(replicas=2, ready=False)
    bench["db1"].down()
    bench["db2"].freeze()
    async with bench:
        with pytest.raises(AcquireTimeoutError) as error:
            await bench.manager.acquire(timeout=1.5)
        assert isinstance(error.value, TimeoutError)
        assert isinstance(error.value, PyscopgError)
        assert str(error.value) == (
            "no connection to a master within 1.5 s: "
            "db1:5432 unavailable (ConnectionRefusedError: db1: connection refused); "
            "db2:5432 unavailable (TimeoutError: no connection within 1 s); "
            "db3:5432 replica"
        )
        with pytest.raises(AcquireTimeoutError, match="no connection to a replica"):
            bench["db3"].down()
            await bench.manager.acquire(read_only=True, timeout=3)


@virtual
async def test_a_driver_that_tells_the_password_is_silenced() -> None:
    bench = Bench(replicas=0, ready=False)

    async def refuse(*_: object, **__: object) -> FakePool:
        raise OSError("cannot connect to postgresql://user:secret@db1/test")

    bench.adapter.create_pool = refuse  # type: ignore[method-assign]
    async with bench:
        with pytest.raises(AcquireTimeoutError, match=r"user:\*\*\*@db1") as error:
            await bench.manager.acquire()
        assert "secret" not in str(error.value)
        assert "secret" not in repr(bench.manager.topology["db1:5432"].reason)


@pytest.mark.parametrize("sqlstate", [WRONG_PASSWORD, UNKNOWN_DATABASE, "28000"])
@virtual
async def test_what_waiting_does_not_heal_is_told(sqlstate: str) -> None:
    bench = Bench(replicas=1, ready=False)
    bench["db1"].refuse_connects = bench["db2"].refuse_connects = sqlstate
    async with bench:
        for waiting in (
            bench.manager.ready(),
            bench.manager.ready(1, 0),
            bench.manager.ready(0, 1),
        ):
            with pytest.raises(NotReadyError, match="no use in waiting") as error:
                await waiting
            assert now() < 0.1
            cause = error.value.__cause__
            assert isinstance(cause, FakeError)
            assert cause.sqlstate == sqlstate
        with pytest.raises(AcquireTimeoutError) as timeout:
            await bench.manager.acquire()
        assert timeout.value.__cause__ is bench.manager.topology["db1:5432"].error
        for server in bench.network.servers.values():
            server.refuse_connects = None
        await bench.until_roles("master replica", within=20)


@virtual
async def test_ready_fails_at_once_only_where_too_many_are_hopeless() -> None:
    bench = Bench(replicas=2, ready=False)
    bench["db3"].refuse_connects = WRONG_PASSWORD
    async with bench:
        await bench.manager.ready(1, 1)
        for waiting in (bench.manager.ready(), bench.manager.ready(1, 2)):
            began = now()
            with pytest.raises(NotReadyError, match="no use in waiting"):
                await waiting
            assert now() == began


@pytest.mark.parametrize("sqlstate", [FULL, STARTING])
@virtual
async def test_what_waiting_heals_is_waited_for(sqlstate: str) -> None:
    bench = Bench(replicas=0, ready=False)
    bench["db1"].refuse_connects = sqlstate
    async with bench:
        ready, acquire = (
            start(bench.manager.ready()),
            start(bench.manager.acquire(timeout=9)),
        )
        await asyncio.sleep(5)
        assert not ready.done()
        bench["db1"].refuse_connects = None
        await ready
        await bench.manager.release(await acquire)
        assert now() < 5.3


@virtual
async def test_an_option_that_the_driver_refuses_only_when_it_connects() -> None:
    bench = Bench(replicas=0, ready=False)

    async def refuse(*_: object, **__: object) -> FakePool:
        raise TypeError("no such option: ssll")

    bench.adapter.create_pool = refuse  # type: ignore[method-assign]
    async with bench:
        with pytest.raises(NotReadyError) as error:
            await bench.manager.ready()
        assert isinstance(error.value.__cause__, TypeError)
        assert now() < 0.01
