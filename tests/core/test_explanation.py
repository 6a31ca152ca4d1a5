"""What `AcquireTimeoutError` and `NotReadyError` say, and whom they blame."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import pytest
from tests.core.conftest import Bench, in_use, lose, make, start, virtual

from pyscopg2.core.adapter import HookError
from pyscopg2.core.diagnosis.standing import Explanation, Hindrance, Standing
from pyscopg2.core.errors import AcquireTimeoutError, NotReadyError, PoolManagerClosedError
from pyscopg2.testing.fake import FakeAdapter, FakeConnection, FakePool
from pyscopg2.testing.fake_server import FULL, WRONG_PASSWORD, FakeError
from pyscopg2.testing.virtual_time import settle

FULL_POOL = (
    "The pool is full: give connections back sooner, or give pool_factory_kwargs a larger size"
    " (max_size, or what the driver calls it)"
)
TOO_MANY = "FakeError: sorry, too many clients already"


async def refusal(work: Awaitable[object]) -> AcquireTimeoutError:
    with pytest.raises(AcquireTimeoutError) as caught:
        await work
    return caught.value


@virtual
async def test_an_exhausted_pool_is_nobodys_fault() -> None:
    async with Bench(replicas=2, size=2) as bench:
        bench["db3"].refuse_connects = WRONG_PASSWORD
        bench["db3"].break_connections()
        await bench.until_roles("master replica unavailable")
        held = await bench.drain()
        waiting = [start(bench.manager.acquire(timeout=0.3)) for _ in range(3)]
        errors = [await refusal(each) for each in waiting]
        for error in errors:
            assert str(error) == (
                "no connection to a master within 0.3 s: "
                "db1:5432 master: 2 of 2 in use, 3 waiting; "
                "db2:5432 replica; "
                f"{bench.manager.topology['db3:5432']}. {FULL_POOL}"
            )
            assert error.__cause__ is None
            assert error.__suppress_context__
        for connection in held:
            await bench.manager.release(connection)


@virtual
async def test_where_there_is_only_a_master_reads_are_told_how_to_go_there() -> None:
    advice = "No replica is in service: with fallback_master=True a master serves reads meanwhile"
    async with Bench(replicas=1) as bench:
        bench["db2"].down()
        await bench.until_roles("master unavailable")
        error = await refusal(bench.manager.acquire_replica(timeout=0.1))
        assert str(error).endswith(f"db2: connection refused). {advice}")
        assert bench.manager.explain(True).advice == advice
        assert bench.manager.explain(True, True).advice == ""
        bench["db1"].down()
        await bench.until_roles("unavailable unavailable")
        error = await refusal(bench.manager.acquire_replica(timeout=0.1))
        assert "fallback_master" not in str(error)


@virtual
async def test_those_count_as_waiting_who_could_have_the_slot() -> None:
    async with Bench(replicas=1, size=1) as bench:
        held = [*await bench.drain(), *await bench.drain(read_only=True)]
        others = [start(bench.manager.acquire(timeout=9)) for _ in range(2)]
        others += [
            start(bench.manager.acquire(True, master_as_replica_weight=1.0, timeout=9))
            for _ in range(3)
        ]
        error = await refusal(bench.manager.acquire_replica(timeout=0.3))
        assert "db1:5432 master; db2:5432 replica: 1 of 1 in use, 4 waiting" in str(error)
        error = await refusal(bench.manager.acquire_master(timeout=0.3))
        assert "db1:5432 master: 1 of 1 in use, 6 waiting; db2:5432 replica" in str(error)
        for each in others:
            each.cancel()
        await asyncio.wait(others)
        for connection in held:
            await bench.manager.release(connection)


@virtual
async def test_a_pool_without_a_limit_has_no_size() -> None:
    class Unlimited(FakeAdapter):
        def get_pool_maxsize(self, pool: FakePool, /) -> int | None:
            return None

    async with Bench(replicas=0, adapter=Unlimited, refresh_delay=60) as bench:
        held = [await bench.manager.acquire()]
        bench["db1"].refuse_connects = FULL
        error = await refusal(bench.manager.acquire(timeout=0.01))
        assert "db1:5432 master: 1 in use, 1 waiting, no more after a failed connect" in str(error)
        await bench.manager.release(held[0])


@virtual
async def test_for_a_master_that_is_lost_no_replica_is_blamed() -> None:
    async with Bench(replicas=1) as bench:
        bench["db2"].refuse_connects = WRONG_PASSWORD
        bench["db2"].break_connections()
        bench["db1"].down()
        await bench.until_roles("unavailable unavailable")
        topology = bench.manager.topology
        assert topology["db2:5432"].hopeless
        error = await refusal(bench.manager.acquire(timeout=0.1))
        assert isinstance(error.__cause__, ConnectionRefusedError)
        error = await refusal(bench.manager.acquire_replica(timeout=0.1))
        assert isinstance(error.__cause__, FakeError)
        error = await refusal(bench.manager.acquire_replica(fallback_master=True, timeout=0.1))
        assert isinstance(error.__cause__, FakeError)


@virtual
async def test_of_hosts_that_never_answered_the_one_is_blamed_that_waiting_does_not_heal() -> None:
    bench = Bench(replicas=2, ready=False)
    bench["db1"].down()
    bench["db2"].refuse_connects = WRONG_PASSWORD
    async with bench:
        error = await refusal(bench.manager.acquire(timeout=0.3))
        assert bench.roles == "unavailable unavailable replica"
        assert isinstance(error.__cause__, FakeError)


@virtual
async def test_a_connect_that_failed_is_told_of_and_blamed() -> None:
    class Forging(FakeAdapter):
        async def acquire_from_pool(self, pool: FakePool, /, **kwargs: Any) -> FakeConnection:
            try:
                return await pool.acquire()
            except FakeError:
                raise FakeError("full of secret\rstuff", FULL) from None

    async with Bench(replicas=1, refresh_delay=60, adapter=Forging) as bench:
        held = await bench.manager.acquire()
        bench["db1"].refuse_connects = FULL
        error = await refusal(bench.manager.acquire(timeout=0.5))
        assert str(error) == (
            "no connection to a master within 0.5 s: db1:5432 master: 1 of 10 in use, 1 waiting,"
            r" no more after a failed connect: FakeError: full of ***\rstuff; db2:5432 replica"
        )
        assert isinstance(error.__cause__, FakeError)
        await bench.manager.release(held)


@virtual
async def test_one_that_never_got_a_turn_is_told_of_the_connect_that_stood_in_its_way() -> None:
    async with Bench(replicas=0, size=1, refresh_delay=60) as bench:
        held = await bench.manager.acquire()
        held.terminate()
        await bench.manager.release(held)
        bench["db1"].refuse_connects = FULL
        first = start(bench.manager.acquire(timeout=0.1))
        second = start(bench.manager.acquire(timeout=0.1))
        for error in (await refusal(first), await refusal(second)):
            assert f"db1:5432 master: suspended, after a failed connect: {TOO_MANY}" in str(error)
            assert isinstance(error.__cause__, FakeError)


@virtual
async def test_the_failure_is_forgotten_when_all_is_well_again() -> None:
    async with Bench(replicas=0, size=2) as bench:
        held = await bench.manager.acquire()
        bench["db1"].refuse_connects = FULL
        await refusal(bench.manager.acquire(timeout=0.1))
        bench["db1"].refuse_connects = None
        await asyncio.sleep(3)
        other = await bench.manager.acquire()
        error = await refusal(bench.manager.acquire(timeout=0.1))
        assert str(error).endswith(f"db1:5432 master: 2 of 2 in use, 1 waiting. {FULL_POOL}")
        assert error.__cause__ is None
        for connection in (held, other):
            await bench.manager.release(connection)


@virtual
async def test_a_connect_that_hangs_is_told_of() -> None:
    async with Bench(replicas=0, size=2, refresh_delay=60) as bench:
        held = await bench.manager.acquire()
        bench["db1"].freeze()
        error = await refusal(bench.manager.acquire(timeout=0.1))
        assert "db1:5432 master: no connection within 0.1 s" in str(error)
        assert error.__cause__ is None
        bench["db1"].thaw()
        await bench.manager.release(held)


@virtual
async def test_a_host_that_is_overdue_is_told_of() -> None:
    async with Bench(replicas=0, size=1, refresh_timeout=5) as bench:
        for _ in range(5):
            await bench.check()
        held = await bench.manager.acquire()
        bench["db1"].freeze()
        error = await refusal(bench.manager.acquire(timeout=3))
        assert "db1:5432 master (overdue with its check): 1 of 1 in use, 1 waiting" in str(error)
        bench["db1"].thaw()
        await bench.manager.release(held)


@virtual
async def test_each_who_waits_gets_an_error_of_its_own() -> None:
    async with Bench(replicas=1, size=1) as bench:
        await bench.drain()
        pool = bench.pool("db1")
        manager = bench.manager
        line = [start(manager.acquire(timeout=9)) for _ in range(2)]
        waits = [start(manager.wait_masters_ready(2)) for _ in range(2)]
        waits += [start(manager.ready(2, 0)) for _ in range(2)]
        own_pool = [start(manager.acquire_from_pool(pool)) for _ in range(2)]
        await settle()
        lose(manager, "db1:5432")
        await asyncio.wait(own_pool)
        retired = [each.exception() for each in own_pool]
        assert [type(error) for error in retired] == [ValueError] * 2
        assert retired[0] is not retired[1]
        await manager.terminate()
        tasks = (*line, *waits, start(manager.ready()), start(manager.acquire().__aenter__()))
        await asyncio.wait(tasks)
        errors = [each.exception() for each in tasks]
        assert {type(error) for error in errors} == {PoolManagerClosedError}
        assert len({id(error) for error in errors}) == len(errors)


@virtual
async def test_not_ready_blames_a_host_that_the_wait_was_for() -> None:
    async with Bench(replicas=2) as bench:
        bench["db3"].refuse_connects = WRONG_PASSWORD
        bench["db3"].break_connections()
        bench["db1"].down()
        await bench.until_roles("unavailable replica unavailable")
        for masters, replicas, kind in (
            (1, 0, OSError),
            (0, 2, FakeError),
            (None, None, FakeError),
        ):
            with pytest.raises(NotReadyError) as caught:
                await bench.manager.ready(masters, replicas, timeout=0.1)
            assert isinstance(caught.value.__cause__, kind)
        bench["db1"].up()
        await bench.until_roles("master replica unavailable")
        bench["db1"].freeze()
        with pytest.raises(NotReadyError) as caught:
            await bench.manager.wait_next_pool_check(timeout=0.1)
        assert caught.value.__cause__ is None
        bench["db1"].thaw()


# A hook of the user's


class HookedError(Exception):
    """Of a hook."""


class Hooked(FakeAdapter):
    """Its pools have a hook per acquire, which fails while it is told to, at once or later."""

    fails = False
    waits = 0.0

    async def acquire_from_pool(self, pool: FakePool, /, **kwargs: Any) -> FakeConnection:
        connection = await pool.acquire(**kwargs)
        try:
            await self.hook()
        except Exception as exc:
            await pool.release(connection)
            raise HookError("a hook failed") from exc
        return connection

    async def hook(self) -> None:
        if self.waits:
            await asyncio.sleep(self.waits)
        if self.fails:
            try:
                raise LookupError("whose request?")
            except LookupError as exc:
                raise HookedError("no tenant") from exc


@pytest.mark.parametrize("waits", [0.0, 0.02])
@pytest.mark.parametrize("awaited", [True, False])
@virtual
async def test_the_error_of_a_hook_is_the_users_at_once(waits: float, awaited: bool) -> None:
    async with Bench(replicas=1, adapter=Hooked, size=1, refresh_delay=60) as bench:
        adapter = bench.adapter
        assert isinstance(adapter, Hooked)
        adapter.waits = waits
        adapter.fails = True
        checks = bench["db1"].queries
        began = asyncio.get_running_loop().time()
        with pytest.raises(HookedError, match="no tenant") as caught:
            if awaited:
                await bench.manager.acquire(timeout=5)
            else:
                async with bench.manager.acquire(timeout=5):
                    pass
        took = asyncio.get_running_loop().time() - began
        assert took == pytest.approx(waits, abs=0.01)
        error = caught.value
        # As the hook raised it: nothing of ours around it, and where it came from is to be seen.
        assert error.__context__ is error.__cause__
        assert isinstance(error.__cause__, LookupError)
        assert "hook" in [entry.name for entry in caught.traceback]
        assert in_use(bench.manager) == 0
        # The host is neither suspended nor suspected.
        adapter.fails = False
        async with bench.manager.acquire(timeout=0.2) as connection:
            assert connection.server is bench["db1"]
        assert bench["db1"].queries == checks


@virtual
async def test_who_waits_gets_the_slot_of_one_whose_hook_failed() -> None:
    async with Bench(replicas=0, adapter=Hooked, size=1) as bench:
        adapter = bench.adapter
        assert isinstance(adapter, Hooked)
        adapter.waits, adapter.fails = 0.1, True
        failing = start(bench.manager.acquire())
        await settle()
        waiting = start(bench.manager.acquire())
        await settle()
        with pytest.raises(HookedError):
            await failing
        adapter.fails = False
        await bench.manager.release(await waiting)


# Asked beforehand


@virtual
async def test_what_a_request_would_get() -> None:
    async with Bench(replicas=2, size=2) as bench:
        manager = bench.manager
        told = manager.explain()
        assert told.serves
        assert told.hindrance is None
        assert str(told) == (
            "a master: db1:5432 master: would serve, 2 free; db2:5432 replica; db3:5432 replica"
        )
        held = await bench.drain()
        told = manager.explain()
        assert not told.serves
        assert told.hindrance is Hindrance.BUSY
        assert told.hosts[0].text == "db1:5432 master: 2 of 2 in use, 0 waiting"
        error = await refusal(manager.acquire(timeout=0.1))
        assert told.hosts[0].text.replace("0 waiting", "1 waiting") in str(error)
        read = manager.explain(True)
        assert [host.serves for host in read.hosts] == [False, True, True]
        assert read.hosts[0].hindrance is Hindrance.ROLE
        for connection in held:
            await manager.release(connection)


@virtual
async def test_what_a_read_with_a_bound_would_get() -> None:
    async with Bench(replicas=1, size=2) as bench:
        manager = bench.manager
        told = manager.explain(True, max_lag=0.000001)
        assert told.asked == "a replica at most 1e-06 s behind"
        assert told.hindrance is Hindrance.LAG
        assert "behind at most" in told.hosts[1].text
        assert manager.explain(True, max_lag=60).serves
        # A master serves where no replica is proven.
        told = manager.explain(True, True, max_lag=0.000001)
        assert [host.serves for host in told.hosts] == [True, False]
        told = manager.explain(True, True, max_lag=60)
        assert [host.serves for host in told.hosts] == [False, True]
        assert told.hosts[0].text == "db1:5432 master: replicas come first"


@virtual
async def test_hosts_that_are_overdue_come_after_those_that_are_prompt() -> None:
    async with Bench(replicas=2) as bench:
        bench["db2"].freeze()
        await bench.until(lambda: bench.manager.topology["db2:5432"].overdue, 3)
        told = bench.manager.explain(True)
        assert [host.serves for host in told.hosts] == [False, False, True]
        assert told.hosts[1].text == (
            "db2:5432 replica (overdue with its check): prompt ones come first"
        )
        bench["db2"].thaw()


def test_an_explanation_for_json() -> None:
    told = Explanation(
        "a master",
        (Standing("a", Hindrance.ROLE, "a replica"), Standing("b", Hindrance.CONNECT, "b: no")),
    )
    assert told.hindrance is Hindrance.CONNECT
    assert json.loads(json.dumps(told.as_dict())) == {
        "asked": "a master",
        "serves": False,
        "hosts": [
            {"address": "a", "serves": False, "hindrance": "role", "text": "a replica"},
            {"address": "b", "serves": False, "hindrance": "connect", "text": "b: no"},
        ],
    }


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"read_only": 1}, TypeError),
        ({"fallback_master": "no"}, TypeError),
        ({"max_lag": 1.0}, ValueError),
        ({"after": "1.1.1"}, ValueError),
        ({"read_only": True, "max_lag": -1}, ValueError),
    ],
)
def test_what_cannot_be_asked(wrong: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        make().explain(**wrong)
