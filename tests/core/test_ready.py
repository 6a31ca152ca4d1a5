"""`ready`, and the other waits for hosts."""

import asyncio
from typing import Any

import pytest
from tests.core.conftest import Bench, make, now, start, virtual

from pyscopg2.core.errors import NotReadyError
from pyscopg2.testing.virtual_time import run


@virtual
async def test_ready_waits_until_every_host_has_answered() -> None:
    bench = Bench(replicas=2, ready=False)
    bench["db3"].latency = 0.2
    bench["db2"].down()
    async with bench:
        with pytest.raises(NotReadyError, match="not ready within 1 s: db1:5432 master; db2:5432"):
            await bench.manager.ready(timeout=1)
        bench["db2"].up()
        await bench.manager.ready()
        assert bench.roles == "master replica replica"


@pytest.mark.parametrize(
    ("down", "counts", "reached"),
    [
        ((), (1, 2), True),
        (("db2",), (1, 2), False),
        ((), (2, 0), False),
        ((), (0, 0), True),
        (("db1",), (0, 2), True),
        (("db1",), (1, 0), False),
        (("db2",), (1, 1), True),
        (("db2", "db3"), (1, 0), True),
        (("db1", "db2", "db3"), (0, 0), True),
    ],
)
@virtual
async def test_ready_counts_roles(
    down: tuple[str, ...], counts: tuple[int, int], reached: bool
) -> None:
    bench = Bench(replicas=2, ready=False)
    for name in down:
        bench[name].down()
    async with bench:
        if reached:
            await bench.manager.ready(*counts, 3)
            assert now() < 0.1
        else:
            with pytest.raises(NotReadyError):
                await bench.manager.ready(*counts, 3)
            assert now() == pytest.approx(3)


@virtual
async def test_more_hosts_than_there_are_can_never_be_ready() -> None:
    bench = Bench(replicas=2, ready=False)
    manager = bench.manager
    async with bench:
        for waiting, what in (
            (manager.ready(1, 5), "1 masters and 5 replicas"),
            (manager.ready(2, 2), "2 masters and 2 replicas"),
            (manager.wait_masters_ready(4), "4 masters and 0 replicas"),
            (manager.wait_replicas_ready(5), "0 masters and 5 replicas"),
        ):
            with pytest.raises(ValueError, match=what) as error:
                await waiting
            assert str(error.value) == (
                f"{what} can never be: the DSN has 3 hosts, each with one role:"
                " db1:5432, db2:5432, db3:5432"
            )
            assert now() == 0
    with pytest.raises(ValueError, match="the DSN has 1 host, each"):
        await Bench(replicas=0, ready=False).manager.ready(1, 1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"masters_count": 1}, ValueError),
        ({"replicas_count": 1}, ValueError),
        ({"masters_count": -1, "replicas_count": 1}, ValueError),
        ({"masters_count": 1, "replicas_count": -1}, ValueError),
        ({"masters_count": 1.5, "replicas_count": 1}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"timeout": None}, TypeError),
        ({"hosts": 3}, TypeError),
    ],
)
def test_arguments_of_ready_that_are_refused(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        run(make().ready(**arguments))


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("wait_masters_ready", (-1,)),
        ("wait_replicas_ready", (-1,)),
        ("wait_next_pool_check", (-1,)),
    ],
)
def test_so_are_those_of_the_other_waits(verb: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError):
        run(getattr(make(), verb)(*arguments))


@virtual
async def test_the_waits_end_when_it_is_so() -> None:
    bench = Bench(replicas=2, ready=False)
    bench["db1"].latency = 0.1
    bench["db3"].latency = 0.05
    async with bench:
        ends: dict[str, float] = {}

        async def note(name: str, *arguments: int) -> None:
            await getattr(bench.manager, name)(*arguments)
            ends[name + str(arguments)] = round(now(), 3)

        await asyncio.gather(
            note("wait_replicas_ready", 1),
            note("wait_replicas_ready", 2),
            note("wait_masters_ready", 1),
            note("wait_all_ready"),
            note("wait_masters_ready", 0),
        )
        assert ends == {
            "wait_masters_ready(0,)": 0.0,
            "wait_replicas_ready(1,)": 0.1,  # two of three are of one system
            "wait_replicas_ready(2,)": 0.15,
            "wait_masters_ready(1,)": 0.3,
            "wait_all_ready()": 0.3,
        }


@virtual
async def test_the_next_check_began_after_the_call() -> None:
    async with Bench(refresh_delay=5) as bench:
        await asyncio.sleep(1)
        bench["db1"].latency = 0.3
        first = start(bench.manager.wait_next_pool_check())
        await asyncio.sleep(0.1)
        assert bench["db1"].log[-1].time == 1.003
        bench["db1"].in_recovery = True
        bench["db1"].latency = 0.3
        second = start(bench.manager.wait_next_pool_check())
        await first
        assert bench.role("db1") == "replica"
        bench["db1"].in_recovery = False
        await second
        assert bench.role("db1") == "master"


@virtual
async def test_a_host_that_is_down_counts_as_checked() -> None:
    async with Bench() as bench:
        bench["db2"].down()
        await bench.manager.wait_next_pool_check()
        assert bench.roles == "master unavailable"
        began = now()
        bench["db1"].freeze()
        with pytest.raises(NotReadyError):
            await bench.manager.wait_next_pool_check(timeout=0.5)
        assert now() == began + 0.5
        await bench.manager.wait_next_pool_check(2)
